//! The steps of relays and of what befalls them, and the checks of what passes.

use super::*;

impl SimCluster<'_> {
    /// Takes a step: of a relay, of the store, or of what befalls them.
    pub(super) async fn step(&mut self, at: usize, step: SimStep) {
        match step {
            SimStep::Start => self.start(at).await,
            SimStep::Beat => {
                self.push(at, HEARTBEAT, SimStep::Beat);
                let offset = self.clock_offset;
                let instant = self.instant();
                if self.relays[at].cut_until > self.now {
                    return;
                }
                let it = &mut self.relays[at];
                if offset.abs_diff(it.offset) > u64::try_from(CLOCK_STEP.as_micros()).unwrap() {
                    it.unbroken.begin_again(instant);
                }
                it.offset = offset;
                let named = self.time(offset);
                let sent = self.now;
                self.send(at, SimStep::BeatStored { sent, named });
            }
            SimStep::BeatStored { sent, named } => {
                let run = self.run_of(at);
                let stored = self.store.change(async |tx| tx.heartbeat(run, named).await);
                let is_over = match stored.await {
                    Ok(()) => false,
                    Err(StoreError::RunOver) => true,
                    Err(error) => panic!("{error}"),
                };
                self.answer(at, SimStep::BeatAnswered { sent, is_over });
            }
            SimStep::BeatAnswered { is_over: true, .. } => {
                // It exits, and its service manager starts it again.
                let it = &mut self.relays[at];
                it.fence.shut();
                self.end(at);
                self.push(at, Duration::from_secs(2), SimStep::Start);
            }
            SimStep::BeatAnswered { sent, .. } => {
                let (now, instant) = (self.now, self.instant());
                let it = &mut self.relays[at];
                it.fence.beat(sent, now);
                it.unbroken.beat(instant);
                if it.unbroken.may_judge(instant) {
                    let now = self.time(self.relays[at].offset);
                    self.send(at, SimStep::Judge { now });
                }
            }
            SimStep::Judge { now } => {
                let run = self.run_of(at);
                let dead = self
                    .store
                    .change(async |tx| tx.end_stale_runs(run, now).await);
                self.sums.declared += dead.await.unwrap().len() as u64;
            }
            SimStep::Look => {
                self.push(at, STORE_POLL, SimStep::Look);
                let began = self.now;
                let version = self.store.access_version().await.unwrap();
                let it = &self.relays[at];
                if version != it.enforced || it.fence.awaits_enforcement() {
                    self.send(at, SimStep::LookRead { began });
                }
            }
            SimStep::LookRead { began } => {
                let version = self.store.access_version().await.unwrap();
                let locked = self.locked().await;
                self.answer(
                    at,
                    SimStep::LookAnswered {
                        began,
                        version,
                        locked,
                    },
                );
            }
            SimStep::LookAnswered {
                began,
                version,
                locked,
            } => {
                let it = &mut self.relays[at];
                if version >= it.enforced {
                    it.sessions.retain(|_, user| !locked.contains(user));
                    (it.enforced, it.locked) = (version, locked);
                    self.send(at, SimStep::Confirmed { began, version });
                }
            }
            SimStep::Confirmed { began, version } => {
                let run = self.run_of(at);
                let confirms = async |tx: &mut Tx| tx.relay_confirms(run, version).await;
                self.store.change(confirms).await.unwrap();
                self.answer(at, SimStep::ConfirmAnswered { began });
            }
            SimStep::ConfirmAnswered { began } => {
                let now = self.now;
                self.relays[at].fence.enforced(began, now);
            }
            SimStep::LogIn => {
                let again = self.random.millis(200, 2_500);
                self.push(at, again, SimStep::LogIn);
                let user = self.any_user();
                let it = &self.relays[at];
                if it.is_up && it.paused_until <= self.now {
                    self.life = it.runs.len();
                    self.send(at, SimStep::SlotTaken { user });
                }
            }
            SimStep::SlotTaken { user } => self.take_slot(at, user).await,
            SimStep::SlotAnswered {
                user,
                number,
                version,
                is_locked,
            } => {
                let it = &mut self.relays[at];
                // A session that was admitted by an older policy is judged by the newest.
                let is_locked = is_locked || (version < it.enforced && it.locked.contains(&user));
                if !is_locked {
                    it.sessions.insert(number, user);
                }
            }
            SimStep::LogOut => {
                let after = self.random.millis(500, 6_000);
                self.push(at, after, SimStep::LogOut);
                let it = &mut self.relays[at];
                if let Some((number, _)) = it.sessions.pop_first() {
                    self.send(at, SimStep::Released { number });
                }
            }
            SimStep::Released { number } => {
                let run = self.run_of(at);
                let release = async |tx: &mut Tx| tx.release_leases(run, [number]).await;
                self.store.change(release).await.unwrap();
            }
            SimStep::Byte => {
                self.push(at, BYTES, SimStep::Byte);
                self.pass(at);
            }
            SimStep::Lock => self.lock().await,
            SimStep::AskConfirmed {
                user,
                version,
                until,
            } => {
                let now = self.time(self.clock_offset);
                if self.store.relays_behind(version, now).await.unwrap() == 0 {
                    self.acknowledged.insert(user, self.now);
                } else if self.now < until {
                    self.push(
                        0,
                        CONFIRM_POLL,
                        SimStep::AskConfirmed {
                            user,
                            version,
                            until,
                        },
                    );
                }
            }
            SimStep::Fault => self.fault(at),
        }
    }

    async fn take_slot(&mut self, at: usize, user: String) {
        self.counter += 1;
        let number = i64::try_from(self.counter).unwrap();
        let lease = LeaseRow {
            relay: self.run_of(at),
            number,
            quota: Quota::Sessions,
            user: UserName::new(&user).unwrap(),
        };
        let now = self.time(self.clock_offset);
        let event = Event::new(EventKind::SessionStart).user(Actor::by_key(&user, "SHA256:x"));
        let mut tx = self.store.begin(Durability::Process).await.unwrap();
        let taken = tx.take_lease(&lease, NonZeroU32::new(LIMIT), now).await;
        tx.audit(event.entry(Some("relay"), now));
        tx.commit().await.unwrap();
        match taken {
            Ok(Ok(())) => {}
            Ok(Err(_full)) => {
                self.sums.refused += 1;
                return;
            }
            // A login at a relay that has not noticed yet that it was declared dead.
            Err(StoreError::RunOver) => return,
            Err(error) => panic!("{error}"),
        }
        let version = self.store.access_version().await.unwrap();
        let is_locked = self.locked().await.contains(&user);
        self.send(
            at,
            SimStep::SlotAnswered {
                user,
                number,
                version,
                is_locked,
            },
        );
    }

    /// Passes a byte on each session of a relay whose fence is open, and checks that it may.
    fn pass(&mut self, at: usize) {
        let now = self.now;
        if self.relays[at].fence.look(now) != FenceState::Open {
            return;
        }
        assert!(now < self.relays[at].fence.until());
        let users: Vec<String> = self.relays[at].sessions.values().cloned().collect();
        for user in users {
            self.sums.bytes += 1;
            if let Some(acknowledged) = self.acknowledged.get(&user) {
                let late = now.saturating_sub(*acknowledged);
                assert!(
                    self.clock_was_set && late <= BOUND,
                    "relay {at} passes a byte of {user}, {late:?} after a lock was acknowledged"
                );
            }
            let passing = self.relays.iter().filter(|it| {
                let is_open = it.fence.clone().look(now) == FenceState::Open;
                it.is_up && it.paused_until <= now && is_open
            });
            let sessions = passing.flat_map(|it| it.sessions.values());
            let count = sessions.filter(|name| **name == user).count();
            assert!(
                count <= LIMIT as usize,
                "{user} has {count} sessions at {now:?}"
            );
        }
    }

    async fn lock(&mut self) {
        let user = self.any_user();
        let after = self.random.millis(10_000, 40_000);
        self.push(0, after, SimStep::Lock);
        if self.acknowledged.contains_key(&user) {
            return;
        }
        let now = self.time(self.clock_offset);
        let lock = NewLock {
            target: LockTarget::User(UserName::new(&user).unwrap()),
            message: String::new(),
            by: None,
            // Behind all that the clock may be set to.
            expires: Some(now.after(Duration::from_secs(3 * 3600))),
        };
        let mut tx = self.store.begin(Durability::Disk).await.unwrap();
        tx.add_lock(lock, now).await.unwrap();
        tx.commit().await.unwrap();
        let version = self.store.access_version().await.unwrap();
        let until = self.now + CONFIRM_TIMEOUT;
        self.push(
            0,
            Duration::ZERO,
            SimStep::AskConfirmed {
                user,
                version,
                until,
            },
        );
    }

    async fn locked(&self) -> Vec<String> {
        let locks = self.store.locks(self.time(self.clock_offset)).await;
        let users = locks
            .unwrap()
            .into_iter()
            .filter_map(|lock| match lock.target {
                LockTarget::User(user) => Some(user.as_str().to_owned()),
                _ => None,
            });
        users.collect()
    }

    fn fault(&mut self, at: usize) {
        let again = self.random.millis(4_000, 40_000);
        self.push(at, again, SimStep::Fault);
        let span = self.random.millis(1_000, 40_000);
        match self.random.pick(0, 20) {
            0..8 => self.relays[at].cut_until = self.now + span,
            8..13 => self.relays[at].paused_until = self.now + span,
            13..17 => {
                self.end(at);
                let span = self.random.millis(500, 15_000);
                self.push(at, span, SimStep::Start);
            }
            17..19 => {
                let all = self.now + span;
                self.relays.iter_mut().for_each(|it| it.cut_until = all);
            }
            _ => {
                let hour = 3_600_000_000;
                self.clock_offset = [-hour, 0, hour][self.random.index(3)];
                self.clock_was_set = true;
            }
        }
    }
}
