-- Whether a recorded session had a terminal: NULL for what was recorded before this was noted.
ALTER TABLE recordings ADD COLUMN terminal BOOLEAN;
