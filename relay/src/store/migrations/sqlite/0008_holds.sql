-- A recording that is held is neither removed nor outlived by `keep`, until it is released.
ALTER TABLE recordings ADD COLUMN hold_since BIGINT;
ALTER TABLE recordings ADD COLUMN hold_by TEXT;
ALTER TABLE recordings ADD COLUMN hold_reason TEXT;
