//! `dreamfs serve`: the embedded S3 server alone, until SIGINT or SIGTERM. Without a file of users there is one, whose
//! keys are made at the first start, kept in the data folder and shown at every start.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::args::{Serve, ServeProfile};
use super::{complain, text};
use crate::clock::Clock;
use crate::serve::{self, Config, Profile, User};

/// The id and name of the one user of a data folder that was given none.
const OWN_USER: &str = "dreamfs";

/// Runs `dreamfs serve`.
pub fn run(args: Serve) -> ExitCode {
    let (users, shown) = match users(&args) {
        Ok(users) => users,
        Err(why) => return complain(&why),
    };
    let listen = args.listen;
    let config = Config {
        data_dir: args.data,
        listen,
        profile: match args.profile {
            ServeProfile::Rgw => Profile::Rgw,
            ServeProfile::B2 => Profile::B2,
        },
        users,
        copy_bytes_max: args.test_copy_bytes_max.unwrap_or(serve::COPY_BYTES_MAX),
        part_bytes_min: args.test_part_bytes_min.unwrap_or(serve::PART_BYTES_MIN),
        clock: Clock::system(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.and_then(|runtime| runtime.block_on(until_told(config, &shown)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            complain(&format!("{listen} is in use. Choose another with --listen ADDR:PORT; port 0 takes a free one"))
        }
        Err(error) => complain(&format!("the server cannot run: {error}. Check --data and --listen")),
    }
}

/// The users, and what is to be shown of them.
fn users(args: &Serve) -> Result<(Vec<User>, String), String> {
    if let Some(path) = &args.users {
        let users = serve::users_from_file(path).map_err(|error| format!("{error}. Check {}", path.display()))?;
        return Ok((users, String::new()));
    }
    let keys = serve::own_keys(&args.data);
    let (access_key, secret_key) =
        keys.map_err(|error| format!("{} cannot keep data: {error}. Choose another --data", args.data.display()))?;
    let shown = format!("access key {access_key}\nsecret key {secret_key}\n");
    let user = User { id: OWN_USER.to_owned(), name: OWN_USER.to_owned(), email: None, access_key, secret_key };
    Ok((vec![user], shown))
}

async fn until_told(config: Config, shown: &str) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = serve::start(config).await?;
    text::print(&format!("listening on {}\n{shown}", server.endpoint()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}
