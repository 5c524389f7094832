//! `dreamfs serve`: the embedded S3 server alone, until it is told to end.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::serve::{self, Config, Profile, User};

use super::args::{Serve, ServeProfile};
use super::complain;

/// Runs `dreamfs serve`.
pub fn run(args: Serve) -> ExitCode {
    let users = match &args.users {
        Some(path) => serve::users_from_file(path).map_err(|error| error.to_string()),
        None => own_user(&args.data).map(|user| vec![user]).map_err(|error| error.to_string()),
    };
    let users = match users {
        Ok(users) => users,
        Err(why) => return complain(&why),
    };
    let shown = match (&args.users, users.first()) {
        (None, Some(user)) => format!("\naccess key {}\nsecret key {}", user.access_key, user.secret_key),
        _ => String::new(),
    };
    let config = Config {
        data_dir: args.data,
        listen: args.listen,
        profile: match args.profile {
            ServeProfile::Rgw => Profile::Rgw,
            ServeProfile::B2 => Profile::B2,
        },
        users,
        copy_bytes_max: args.test_copy_bytes_max.unwrap_or(serve::COPY_BYTES_MAX),
        part_bytes_min: args.test_part_bytes_min.unwrap_or(serve::PART_BYTES_MIN),
        clock: Clock::system(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no runtime: {error}")),
    };
    match runtime.block_on(serve_until_told(config, &shown)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot serve: {error}")),
    }
}

async fn serve_until_told(config: Config, shown: &str) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = serve::start(config).await?;
    println!("listening on {}{shown}", server.endpoint());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}

/// The user of a data folder that was given none: made once, and kept beside the data.
fn own_user(data: &Path) -> std::io::Result<User> {
    let (access_key, secret_key) = serve::own_keys(data)?;
    Ok(User { id: "dreamfs".to_owned(), name: "dreamfs".to_owned(), email: None, access_key, secret_key })
}
