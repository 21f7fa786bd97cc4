//! The real programs that samples patch, at the versions before their security updates.
//!
//! Each set becomes one folder: the program and the libraries that a bare Debian lacks, unpacked, never installed.
//! `NAME.ready` beside it holds the set's fingerprint; `NAME.missing` says why there is none. tests/src/packages.rs
//! reads both.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::apt::{Archive, Row, Unavailable};
use super::python;
use crate::process::output;

/// A program or library and what it needs.
struct Set {
    name: &'static str,
    /// What is patched; only these versions will do.
    subject: Row,
    /// The subject's files that must find their libraries.
    files: &'static [&'static str],
    /// Libraries that a bare Debian lacks. Another version that is installed will do as well.
    support: &'static [Row],
}

pub(super) const LIBSSL: Row = Row {
    package: "libssl3",
    version: "3.0.20-1~deb12u2",
    sha256: "89be24b41bff568ee6e7caf5680a3d808e80315ed92e407056ce0fa7a5bda025",
};

pub(super) const ZLIB: Row = Row {
    package: "zlib1g",
    version: "1:1.2.13.dfsg-1",
    sha256: "d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4",
};

const LIBSASL: Row = Row {
    package: "libsasl2-2",
    version: "2.1.28+dfsg-10",
    sha256: "11ee190ad39f8d7af441d2c8347388b9449434c73acc67b4b372445ac4152efa",
};

const SETS: &[Set] = &[
    Set {
        name: "libssh2",
        subject: Row {
            package: "libssh2-1",
            version: "1.10.0-3+b1",
            sha256: "d20a3ee34fa84ad8bd381e8be6e9c2c2ea32347cff5e1169c10e978d43f54f24",
        },
        files: &["usr/lib/x86_64-linux-gnu/libssh2.so.1"],
        support: &[LIBSSL, ZLIB],
    },
    Set {
        name: "libssh",
        subject: Row {
            package: "libssh-4",
            version: "0.10.6-0+deb12u2",
            sha256: "2158d90ac21364655fe0372b23341fa3f871146bf3525f7dffef6dfa8f28448a",
        },
        files: &["usr/lib/x86_64-linux-gnu/libssh.so.4"],
        support: &[
            LIBSSL,
            ZLIB,
            Row {
                package: "libgssapi-krb5-2",
                version: "1.20.1-2+deb12u5",
                sha256: "d8b87aea91b956b416c01a28c44ff6228315ae3b73de40acddac3dc5043607d2",
            },
            Row {
                package: "libkrb5-3",
                version: "1.20.1-2+deb12u5",
                sha256: "c90801be09701af221b54dd502a59cb378b7284ff31e480738baca317d2f7653",
            },
            Row {
                package: "libk5crypto3",
                version: "1.20.1-2+deb12u5",
                sha256: "7b6e47d15c5c9cdcd456137533d8308aeba608a54cec73b28bd59bfc4b54cf06",
            },
            Row {
                package: "libkrb5support0",
                version: "1.20.1-2+deb12u5",
                sha256: "8b9c05f2d8d461a10d657b118f572af5bf8fd6c8f93dcef81e852c5ab0f428ab",
            },
            Row {
                package: "libcom-err2",
                version: "1.47.0-2+b2",
                sha256: "a2bac7015e78fbc0c504df3e441f3a22292f1d2d77f9ccda760057f3690e22f2",
            },
            Row {
                package: "libkeyutils1",
                version: "1.6.3-2",
                sha256: "cfac89e6a7a54ff3c6a4f843310e25efeddaa771baeae470bd98bd588c373563",
            },
        ],
    },
    Set {
        name: "libmodbus",
        subject: Row {
            package: "libmodbus5",
            version: "3.1.6-2.1",
            sha256: "1e35776088ec6111f9809a09eb78c6799dc55eab858ec139a2d96404e59ebbe7",
        },
        files: &["usr/lib/x86_64-linux-gnu/libmodbus.so.5"],
        support: &[],
    },
    Set {
        name: "redis",
        subject: Row {
            package: "redis-tools",
            version: "5:7.0.15-1~deb12u7",
            sha256: "3c8cd27847c6a06b6f6c29e7415a9057462a89661e3a8e2eb8dd5b2d7830bb40",
        },
        files: &["usr/bin/redis-check-rdb"],
        support: &[
            LIBSSL,
            Row {
                package: "liblzf1",
                version: "3.6-3",
                sha256: "9854b0866201b63e04f1e446f45f01ef4a6f72c61f2250b75f944f6046cc7e8c",
            },
            Row {
                package: "libjemalloc2",
                version: "5.3.0-1",
                sha256: "a4117c23c5c8acf6c9678a6cb086f000b79476369da7efe8a78a70826956ad3d",
            },
            Row {
                package: "libatomic1",
                version: "12.2.0-14+deb12u1",
                sha256: "fbd4e154a6b444229ea002cc209df099209c0adc09102e5fd21239a3d2b55e2d",
            },
        ],
    },
    Set {
        name: "memcached",
        subject: Row {
            package: "memcached",
            version: "1.6.18-1",
            sha256: "4b19f893291790fc449e6d941f65eadf9215f84ba02de8e580c285219fe05df7",
        },
        files: &["usr/bin/memcached"],
        support: &[
            LIBSSL,
            Row {
                package: "libevent-2.1-7",
                version: "2.1.12-stable-8",
                sha256: "ca8858a7095ade7776c9f73437812423a45ccd90de2079e8c34830d291df290f",
            },
            LIBSASL,
        ],
    },
    Set {
        name: "beanstalkd",
        subject: Row {
            package: "beanstalkd",
            version: "1.12-2+b1",
            sha256: "4e304a28e87d0dc7581d213c6994b940b3d7a92056920a3107ef894e554ce44a",
        },
        files: &["usr/bin/beanstalkd"],
        // libsystemd0 belongs to a bare Debian: apt needs it.
        support: &[],
    },
    Set {
        name: "lighttpd",
        subject: Row {
            package: "lighttpd",
            version: "1.4.69-1",
            sha256: "1c78f11e4c6cb2b14087f0b012baa8a60e441f6d563a9272c3d9f112c3e5f6e1",
        },
        files: &["usr/sbin/lighttpd"],
        // libpcre2, libnettle and libxxhash belong to a bare Debian: libselinux and apt need them.
        support: &[],
    },
    Set {
        name: "postgresql",
        subject: Row {
            package: "postgresql-15",
            version: "15.18-0+deb12u1",
            sha256: "6974c43ddec4f383d099e7d642cd59d0af83c2c90c0fb153a4179aa1bb4d73c1",
        },
        files: &[
            "usr/lib/postgresql/15/bin/postgres",
            "usr/lib/postgresql/15/bin/initdb",
            "usr/lib/postgresql/15/bin/pgbench",
        ],
        // Not libllvm14 (the server runs without its JIT), nor what only extensions use.
        support: &[
            LIBSSL,
            LIBSASL,
            Row {
                package: "libpq5",
                version: "15.18-0+deb12u1",
                sha256: "baef57c288d7d8c09c84cd461da35d28f981aa71c60448c1d95b52110cc9faf9",
            },
            Row {
                package: "libxml2",
                version: "2.9.14+dfsg-1.3~deb12u6",
                sha256: "4460e39dda10a815881374217cde08474747cfa018358cd8612c14b390eff53b",
            },
            Row {
                package: "libicu72",
                version: "72.1-3+deb12u1",
                sha256: "f7f6f99c6d7b025914df2447fc93e11d22c44c0c8bdd8b6f36691c9e7ddcef88",
            },
            Row {
                package: "libldap-2.5-0",
                version: "2.5.13+dfsg-5",
                sha256: "4b6c30f6554149c594628d945edc6003f0eea8d0cc1341638c0e71375db147ed",
            },
            Row {
                package: "libgssapi-krb5-2",
                version: "1.20.1-2+deb12u5",
                sha256: "d8b87aea91b956b416c01a28c44ff6228315ae3b73de40acddac3dc5043607d2",
            },
            Row {
                package: "libkrb5-3",
                version: "1.20.1-2+deb12u5",
                sha256: "c90801be09701af221b54dd502a59cb378b7284ff31e480738baca317d2f7653",
            },
            Row {
                package: "libk5crypto3",
                version: "1.20.1-2+deb12u5",
                sha256: "7b6e47d15c5c9cdcd456137533d8308aeba608a54cec73b28bd59bfc4b54cf06",
            },
            Row {
                package: "libkrb5support0",
                version: "1.20.1-2+deb12u5",
                sha256: "8b9c05f2d8d461a10d657b118f572af5bf8fd6c8f93dcef81e852c5ab0f428ab",
            },
            Row {
                package: "libkeyutils1",
                version: "1.6.3-2",
                sha256: "cfac89e6a7a54ff3c6a4f843310e25efeddaa771baeae470bd98bd588c373563",
            },
            Row {
                package: "libcom-err2",
                version: "1.47.0-2+b2",
                sha256: "a2bac7015e78fbc0c504df3e441f3a22292f1d2d77f9ccda760057f3690e22f2",
            },
        ],
    },
];

/// Fetches the sets that are not in `folder` yet.
///
/// # Errors
/// The folder can't be written. A set that can't be fetched is noted there, not an error.
pub(super) fn provide(archive: &mut Archive, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for set in SETS {
        let rows = std::iter::once(&set.subject).chain(set.support);
        kept(
            folder,
            set.name,
            &rows.map(Row::line).collect::<String>(),
            |root| fetch(archive, set, root),
        )?;
    }
    Ok(())
}

/// Fetches the set called `name` into a folder of that name, emptied first, unless its `fingerprint` says that it is
/// there; notes how that went.
///
/// # Errors
/// Below `folder` nothing can be written.
pub(super) fn kept(
    folder: &Path,
    name: &str,
    fingerprint: &str,
    fetch: impl FnOnce(&Path) -> Result<(), Unavailable>,
) -> Result<()> {
    let ready = folder.join(format!("{name}.ready"));
    let missing = folder.join(format!("{name}.missing"));
    if fs::read_to_string(&ready).is_ok_and(|known| known == fingerprint) {
        return Ok(());
    }
    remove_if_there(&ready)?;
    let root = folder.join(name);
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    match fetch(&root) {
        Ok(()) => {
            remove_if_there(&missing)?;
            fs::write(&ready, fingerprint)?;
        }
        Err(unavailable) => {
            eprintln!("{name}: {}", unavailable.reason());
            let kind = match unavailable {
                Unavailable::Withdrawn(_) => "withdrawn",
                Unavailable::Failed(_) => "failed",
            };
            fs::write(&missing, format!("{kind}: {}\n", unavailable.reason()))?;
        }
    }
    Ok(())
}

/// Each set's name with `ready` or the reason why it is not.
pub(super) fn states(folder: &Path) -> Vec<(&'static str, String)> {
    let debian = SETS.iter().map(|set| {
        let Row {
            package, version, ..
        } = set.subject;
        (set.name, format!("{package} {version}"))
    });
    let state = |(name, what)| match fs::read_to_string(folder.join(format!("{name}.missing"))) {
        Ok(reason) => (name, reason.trim().to_owned()),
        Err(_) => (name, format!("{what} in {}", folder.join(name).display())),
    };
    debian.chain(python::names()).map(state).collect()
}

fn fetch(archive: &mut Archive, set: &Set, root: &Path) -> Result<(), Unavailable> {
    archive.unpack(&set.subject, root)?;
    for row in set.support {
        if let Err(missing) = archive.unpack(row, root) {
            eprintln!("{}", missing.reason());
        }
    }
    finds_libraries(set, root).map_err(|error| Unavailable::Failed(format!("{error:#}")))
}

/// Asks the dynamic linker whether every library is found, in the set or on this machine.
fn finds_libraries(set: &Set, root: &Path) -> Result<()> {
    let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .map(|sub| root.join(sub).display().to_string());
    for file in set.files {
        let mut ldd = Command::new("ldd");
        let (status, said) = output(
            ldd.arg(root.join(file))
                .env("LD_LIBRARY_PATH", folders.join(":")),
        )?;
        let lacking: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("not found"))
            .map(str::trim)
            .collect();
        if !status.success() || !lacking.is_empty() {
            bail!(
                "{} {} doesn't load here: {}",
                set.subject.package,
                set.subject.version,
                lacking.join("; ")
            );
        }
    }
    Ok(())
}

fn remove_if_there(file: &Path) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
