//! The power fails after every step, and in the middle of every write, on a file system that loses what was not
//! synced: of the names any, and of what a file holds all, nothing, or the first half.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::service::upgrade::plan::{Counter, ProgramStart, UpgradePhase};

const OLD: &[u8] = b"the old program";
const NEW: &[u8] = b"the new program, which is a little longer";

type DiskNames = BTreeMap<PathBuf, Rc<DiskContent>>;

/// The content of a file, now and on the disk.
#[derive(Debug, Default)]
struct DiskContent {
    now: RefCell<Vec<u8>>,
    durable: RefCell<Vec<u8>>,
}

/// A change of names that a cut may lose.
#[derive(Clone, Debug)]
enum DiskChange {
    Set(PathBuf, Rc<DiskContent>),
    Gone(PathBuf),
    Renamed(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct Sim {
    names: RefCell<DiskNames>,
    durable: RefCell<DiskNames>,
    /// The changes since their folder was synced, oldest first.
    pending: RefCell<Vec<DiskChange>>,
    /// Steps until the power fails.
    left: Cell<usize>,
    /// Steps done.
    done: Cell<usize>,
    has_links: bool,
}

impl DiskChange {
    fn folder(&self) -> &Path {
        let (Self::Set(path, _) | Self::Gone(path) | Self::Renamed(path, _)) = self;
        path.parent().unwrap()
    }

    fn apply(&self, names: &mut DiskNames) {
        match self {
            Self::Set(path, content) => drop(names.insert(path.clone(), content.clone())),
            Self::Gone(path) => drop(names.remove(path)),
            Self::Renamed(from, to) => {
                let Some(content) = names.get(from).cloned() else {
                    return;
                };
                // rename(2): two names of one file both stay.
                if !names
                    .get(to)
                    .is_some_and(|there| Rc::ptr_eq(there, &content))
                {
                    names.remove(from);
                    names.insert(to.clone(), content);
                }
            }
        }
    }
}

impl Sim {
    fn step(&self) -> io::Result<()> {
        if self.left.get() == 0 {
            return Err(io::Error::other("the power failed"));
        }
        self.left.set(self.left.get() - 1);
        self.done.set(self.done.get() + 1);
        Ok(())
    }

    fn change(&self, change: DiskChange) {
        change.apply(&mut self.names.borrow_mut());
        self.pending.borrow_mut().push(change);
    }

    fn at(&self, path: &Path) -> io::Result<Rc<DiskContent>> {
        let content = self.names.borrow().get(path).cloned();
        content.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns a device with the old program and nothing else.
    fn device(has_links: bool) -> Self {
        let content = DiskContent::default();
        *content.now.borrow_mut() = OLD.to_vec();
        *content.durable.borrow_mut() = OLD.to_vec();
        let names = DiskNames::from([(places().program, Rc::new(content))]);
        Self {
            names: RefCell::new(names.clone()),
            durable: RefCell::new(names),
            left: Cell::new(usize::MAX),
            has_links,
            ..Self::default()
        }
    }

    /// Returns all that may be there when the power is back.
    fn after_cut(&self) -> Vec<Self> {
        let pending = self.pending.borrow();
        let mut worlds = vec![];
        let is_unsynced =
            |content: &Rc<DiskContent>| *content.now.borrow() != *content.durable.borrow();
        let unsynced = self.names.borrow().values().any(is_unsynced);
        let shares = if unsynced { 0..=2 } else { 2..=2 };
        for kept in 0..1_u32 << pending.len() {
            let mut names = self.durable.borrow().clone();
            for (at, change) in pending.iter().enumerate() {
                if kept & (1 << at) != 0 {
                    change.apply(&mut names);
                }
            }
            worlds.extend(shares.clone().map(|share| self.with(&names, share)));
        }
        worlds
    }

    /// Returns the disk after a power cut, with what was not synced lost, half there (`share` 1) or all there (2).
    fn with(&self, names: &DiskNames, share: usize) -> Self {
        let mut copies: Vec<(Rc<DiskContent>, Rc<DiskContent>)> = vec![];
        let mut copied = DiskNames::new();
        for (path, content) in names {
            let known = copies.iter().find(|(from, _)| Rc::ptr_eq(from, content));
            let copy = if let Some((_, copy)) = known {
                copy.clone()
            } else {
                let (now, durable) = (content.now.borrow(), content.durable.borrow());
                let bytes = match share {
                    0 => durable.clone(),
                    1 => now[..now.len() / 2].to_vec(),
                    _ => now.clone(),
                };
                // What was synced whole is whole.
                let bytes = if *now == *durable { now.clone() } else { bytes };
                let copy = Rc::new(DiskContent {
                    now: RefCell::new(bytes.clone()),
                    durable: RefCell::new(bytes),
                });
                copies.push((content.clone(), copy.clone()));
                copy
            };
            copied.insert(path.clone(), copy);
        }
        Self {
            names: RefCell::new(copied.clone()),
            durable: RefCell::new(copied),
            left: Cell::new(usize::MAX),
            has_links: self.has_links,
            ..Self::default()
        }
    }
}

impl Disk for Sim {
    type File = Rc<DiskContent>;

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>> {
        let bytes = self.at(path)?.now.borrow().clone();
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn create(&self, path: &Path, _mode: u32) -> io::Result<Rc<DiskContent>> {
        self.step()?;
        let content = Rc::new(DiskContent::default());
        self.change(DiskChange::Set(path.to_owned(), content.clone()));
        Ok(content)
    }

    fn append(&self, file: &mut Rc<DiskContent>, bytes: &[u8]) -> io::Result<()> {
        for half in bytes.chunks(bytes.len().div_ceil(2).max(1)) {
            self.step()?;
            file.now.borrow_mut().extend(half);
        }
        Ok(())
    }

    fn sync(&self, file: &Rc<DiskContent>) -> io::Result<()> {
        self.step()?;
        *file.durable.borrow_mut() = file.now.borrow().clone();
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.has_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.step()?;
        let content = self.at(from)?;
        self.change(DiskChange::Set(to.to_owned(), content));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.at(from)?;
        self.change(DiskChange::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.at(path)?;
        self.change(DiskChange::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step()?;
        let mut pending = self.pending.borrow_mut();
        for change in pending.iter().filter(|change| change.folder() == folder) {
            change.apply(&mut self.durable.borrow_mut());
        }
        pending.retain(|change| change.folder() != folder);
        Ok(())
    }
}

fn places() -> UpgradePaths {
    UpgradePaths {
        program: "/usr/local/bin/edge-agent".into(),
        state: "/var/lib/edge-agent".into(),
    }
}

fn journal() -> Journal {
    Journal {
        program: places().program,
        old: Digest::of(OLD).unwrap(),
        new: Digest::of(NEW).unwrap(),
        version: "0.2.0".into(),
        trial_secs: 120,
        launched: 0,
        begun: 0,
        phase: UpgradePhase::Trial,
    }
}

/// Returns what `edge-agent upgrade` and the running agent do.
fn upgrade(disk: &Sim) -> Result<(), SwapError> {
    assert_eq!(stage(disk, &places(), NEW)?, journal().new);
    take(disk, &places(), &journal())
}

/// The properties of the new program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum New {
    Good,
    /// It runs, and gets no tunnel.
    Mute,
    /// It ends before it has done anything, so that only the old one counts its starts.
    Dead,
}

/// Simulates one start of the agent by an init that runs the previous program first, up to a tunnel or the end.
fn start(disk: &Sim, new: New) -> Result<(), SwapError> {
    for counter in [Counter::Init, Counter::Agent] {
        let program = digest(disk, &places().program)?;
        if counter == Counter::Agent && new == New::Dead && program == journal().new {
            return Ok(());
        }
        let Some(known) = read_journal(disk, &places()) else {
            continue;
        };
        match known.at_start(&program, counter) {
            ProgramStart::Usual => {}
            ProgramStart::Over(journal) => write_journal(disk, &places(), &journal)?,
            ProgramStart::PutBack(why) => drop(put_back(disk, &places(), &known, &why)?),
            ProgramStart::Trial(counted) => {
                write_journal(disk, &places(), &counted)?;
                match (counter, new) {
                    (Counter::Init, _) | (_, New::Dead) => {}
                    (Counter::Agent, New::Good) => {
                        write_journal(disk, &places(), &counted.kept())?;
                    }
                    (Counter::Agent, New::Mute) => {
                        put_back(disk, &places(), &counted, "no tunnel")?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Asserts that there is a whole program; a working agent and a complete journal, if `ended`.
#[track_caller]
fn check(disk: &Sim, new: New, ended: bool) {
    let program = disk.at(&places().program).expect("a program");
    let program = program.now.borrow();
    let is_new = *program == NEW;
    assert!(is_new || *program == OLD, "half a program");
    if !ended {
        return;
    }
    assert!(!is_new || new == New::Good, "{new:?} stayed");
    let phase = read_journal(disk, &places()).map(|journal| journal.phase);
    match phase {
        // The cut came before the trial.
        None => assert!(!is_new),
        Some(UpgradePhase::Kept) => assert!(is_new),
        Some(UpgradePhase::PutBack(_)) => assert!(!is_new),
        Some(UpgradePhase::Trial) => panic!("it is on trial for ever"),
    }
}

/// Starts it as often as it takes, and no more often than there are chances.
fn live(disk: &Sim, new: New) {
    for _ in 0..=crate::service::limits::MAX_TRIAL_STARTS {
        start(disk, new).unwrap();
        check(disk, new, false);
    }
    check(disk, new, true);
    let done = disk.done.get();
    start(disk, new).unwrap();
    assert_eq!(
        disk.done.get(),
        done,
        "a start writes nothing when all is over"
    );
}

/// Cuts `act` at each of its steps; what may be there after each cut goes to `then`.
fn cut_everywhere(
    from: &dyn Fn() -> Sim,
    act: &dyn Fn(&Sim) -> Result<(), SwapError>,
    then: &mut dyn FnMut(Sim),
) {
    for left in 0.. {
        let disk = from();
        disk.left.set(left);
        let ended = act(&disk).is_ok();
        disk.after_cut().into_iter().for_each(&mut *then);
        if ended && disk.left.get() > 0 {
            return;
        }
    }
}

#[test]
fn wherever_the_power_fails_an_agent_works_and_all_ends_well() {
    for new in [New::Good, New::Mute, New::Dead] {
        for has_links in [true, false] {
            let mut worlds = 0_usize;
            cut_everywhere(&|| Sim::device(has_links), &upgrade, &mut |disk| {
                check(&disk, new, false);
                worlds += 1;
                // And it fails once more, wherever it may, while the agent recovers.
                let again = || {
                    let copy = disk.with(&disk.durable.borrow(), 2);
                    assert_eq!(
                        *copy.names.borrow().keys().collect::<Vec<_>>(),
                        disk.names.borrow().keys().collect::<Vec<_>>()
                    );
                    copy
                };
                cut_everywhere(&again, &|disk| start(disk, new), &mut |disk| {
                    check(&disk, new, false);
                    worlds += 1;
                    live(&disk, new);
                });
                live(&disk, new);
            });
            assert!(worlds > 100, "{worlds} worlds only");
        }
    }
}

#[test]
fn without_a_cut_the_good_one_stays_and_upgrades_go_on() {
    let disk = Sim::device(true);
    for _ in 0..2 {
        upgrade(&disk).unwrap();
        start(&disk, New::Good).unwrap();
        let phase = read_journal(&disk, &places()).unwrap().phase;
        assert_eq!(phase, UpgradePhase::Kept);
        assert_eq!(digest(&disk, &places().program).unwrap(), journal().new);
    }
    let names = disk.names.borrow();
    assert!(!names.contains_key(&places().spare()), "{names:?}");
}

#[test]
fn a_step_that_fails_leaves_the_old_program_and_says_so() {
    for left in 0.. {
        let disk = Sim::device(true);
        disk.left.set(left);
        let failed = upgrade(&disk).is_err();
        // Not the power but the disk has failed, and it works again: the agent that runs tells the journal.
        disk.left.set(usize::MAX);
        if !failed {
            return;
        }
        if let Some(journal) = read_journal(&disk, &places()) {
            put_back(&disk, &places(), &journal, "cannot write").unwrap();
        }
        check(&disk, New::Dead, true);
    }
}

#[test]
fn what_is_no_previous_program_is_not_put_back() {
    let disk = Sim::device(true);
    upgrade(&disk).unwrap();
    disk.remove(&places().previous()).unwrap();
    let refused = put_back(&disk, &places(), &journal(), "no tunnel");
    assert!(matches!(refused, Err(SwapError::NoPrevious(_))));
    check(&disk, New::Good, false);
}

#[test]
fn what_was_not_checked_does_not_take_the_place() {
    let disk = Sim::device(true);
    stage(&disk, &places(), &b"another program"[..]).unwrap();
    let refused = take(&disk, &places(), &journal());
    assert!(matches!(refused, Err(SwapError::NotStaged(_))));
    check(&disk, New::Dead, true);
}
