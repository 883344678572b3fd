//! Signals in both directions.

use russh::Sig;

use crate::harness::{Session, Site, Way, block_on};

#[test]
fn signals_reach_the_command() {
    let site = Site::new();
    for way in Way::BOTH {
        block_on(async {
            let client = site.client(way).await;
            let signals = [
                ("INT", Sig::INT),
                ("TERM", Sig::TERM),
                ("HUP", Sig::HUP),
                ("QUIT", Sig::QUIT),
                ("USR1", Sig::USR1),
                ("USR2", Sig::Custom("USR2".into())),
                ("WINCH", Sig::Custom("WINCH".into())),
            ];
            for (name, signal) in signals {
                let line = format!(
                    "trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
                );
                let mut session = client.exec(&line).await;
                session.wait_out("ready").await;
                session.signal(signal).await;
                let end = session.wait().await;
                assert_eq!(end.stdout, format!("ready\ngot {name}\n"), "{way:?}");
                assert_eq!(end.status, Some(9), "{way:?} {name}: {end:?}");
            }
        });
    }
}

#[test]
fn a_signal_that_comes_before_the_command_is_ignored() {
    let site = Site::new();
    for way in Way::BOTH {
        block_on(async {
            let client = site.client(way).await;
            for signal in [Sig::TERM, Sig::KILL, Sig::HUP, Sig::INT] {
                let channel = client.try_open().await.unwrap();
                channel.signal(signal.clone()).await.unwrap();
                let line = "sleep 0.3; echo lived";
                let end = Session::exec_on(channel, line).await.wait().await;
                let seen = (end.stdout.as_str(), end.status);
                assert_eq!(seen, ("lived\n", Some(0)), "{way:?} {signal:?}: {end:?}");
            }
        });
    }
}

#[test]
fn an_end_by_a_signal_is_reported_by_its_name() {
    let site = Site::new();
    for way in Way::BOTH {
        block_on(async {
            let client = site.client(way).await;
            let names = [
                ("TERM", Sig::TERM),
                ("KILL", Sig::KILL),
                ("HUP", Sig::HUP),
                ("INT", Sig::INT),
                ("USR1", Sig::USR1),
                ("SEGV", Sig::SEGV),
                ("ABRT", Sig::ABRT),
            ];
            for (name, signal) in names {
                let line = format!("ulimit -c 0; echo before; kill -{name} $$; sleep 60");
                let end = client.exec(&line).await.wait().await;
                assert_eq!(end.stdout, "before\n", "{way:?}");
                assert_eq!(end.status, None, "{way:?} {name}: {end:?}");
                let named = end.signal.unwrap();
                assert_eq!(format!("{named:?}"), format!("{signal:?}"), "{way:?}");
            }
            // One that nothing can catch, from the client.
            let mut session = client
                .exec("trap '' TERM INT HUP; echo ready; sleep 60")
                .await;
            session.wait_out("ready").await;
            session.signal(Sig::KILL).await;
            let end = session.wait().await;
            assert!(matches!(end.signal, Some(Sig::KILL)), "{way:?}: {end:?}");
        });
    }
}
