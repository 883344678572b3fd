//! The one executor of the agent: everything runs on the thread that called [`run`], so that a device
//! with 64 MiB pays for one stack.

use smol::{Executor, Task};

static EXECUTOR: Executor<'static> = Executor::new();

/// Runs `main` and everything that was spawned, until `main` ends.
pub fn run<T>(main: impl Future<Output = T>) -> T {
    smol::block_on(EXECUTOR.run(main))
}

/// Starts a task beside the others. Dropping the handle cancels the task; `detach` lets it go on.
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(task)
}
