//! Files and directories that appear whole or not at all.
//!
//! Everything the crate writes goes to a temporary name in the target's own directory (a rename is atomic only within
//! one file system), is flushed to the disk (`fsync`), is renamed onto its final name, and the directory entry is
//! flushed as well. A crash, a full disk or a killed process therefore leaves the last complete state; at worst a
//! hidden `.NAME.XXXXXX.tmp` stays behind, which no reader looks at.
//!
//! A target that is a symbolic link keeps being one (the file it points to is replaced), and a target that is a device
//! or a pipe (`/dev/stdout`, a named pipe) is written in place, because a rename would replace the device itself.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

/// Why a file or directory could not be written. The target is unchanged in every case.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No space is left on the file system, or the user's quota is used up.
    #[error("cannot write {}: the disk is full ({source}); free some space or choose another place", path.display())]
    DiskFull {
        /// The target.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file system is mounted read-only.
    #[error("cannot write {}: its file system is read-only; choose another place", path.display())]
    ReadOnly {
        /// The target.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The user may not write there.
    #[error(
        "cannot write {}: permission denied; change the rights of {} or choose another place",
        path.display(), directory.display()
    )]
    Denied {
        /// The target.
        path: PathBuf,
        /// The directory that must be writable, since the file is renamed into it.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory does not exist, or a part of the path is a file.
    #[error(
        "cannot write {}: {} is not an existing directory; create it or correct the path",
        path.display(), directory.display()
    )]
    NoDirectory {
        /// The target.
        path: PathBuf,
        /// The directory that was expected.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file was to be written where a directory stands, or the reverse.
    #[error("cannot write {}: {found} of that name is in the way; move it or choose another name", path.display())]
    InTheWay {
        /// The target.
        path: PathBuf,
        /// What stands there: "a directory" or "a file".
        found: &'static str,
    },
    /// The directory exists and takes no files, as those of `/proc` do not.
    #[error("cannot write {}: {} takes no files ({source}); choose another place", path.display(), directory.display())]
    NoFiles {
        /// The target.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Any other failure, also of the code that produces the contents.
    #[error("cannot write {}: {source}", path.display())]
    Other {
        /// The target.
        path: PathBuf,
        /// What the operating system or the producer of the contents said.
        source: io::Error,
    },
}

impl WriteError {
    /// The failure `source` of writing to `path`, explained.
    pub fn of(path: &Path, source: io::Error) -> WriteError {
        let (path, directory) = (path.to_path_buf(), directory_of(path));
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => WriteError::DiskFull { path, source },
            ErrorKind::ReadOnlyFilesystem => WriteError::ReadOnly { path, source },
            ErrorKind::PermissionDenied => WriteError::Denied {
                path,
                directory,
                source,
            },
            ErrorKind::NotFound | ErrorKind::NotADirectory if !directory.is_dir() => WriteError::NoDirectory {
                path,
                directory,
                source,
            },
            _ => WriteError::Other { path, source },
        }
    }
}

/// Makes the directory `path` and those above it, where they are not there yet.
///
/// # Errors
/// [`WriteError`], naming the path, the cause and what to do.
pub fn make_directory(path: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(path).map_err(|source| WriteError::of(path, source))
}

/// Checks that a directory `path` could be made, or written into if it is there, and leaves no trace: a nameless file in
/// the nearest directory that exists.
///
/// # Errors
/// [`WriteError`], as writing would end.
pub fn check_writable(path: &Path) -> Result<(), WriteError> {
    let absolute = std::path::absolute(path).map_err(|source| WriteError::of(path, source))?;
    let existing = absolute.ancestors().find(|directory| directory.exists());
    let existing = existing.unwrap_or(&absolute);
    if !existing.is_dir() {
        return Err(WriteError::InTheWay {
            path: path.to_path_buf(),
            found: "a file",
        });
    }
    let tried = Builder::new().prefix(".tlm.").tempfile_in(existing);
    tried.map(drop).map_err(|source| match source.kind() {
        ErrorKind::NotFound => WriteError::NoFiles {
            path: path.to_path_buf(),
            directory: existing.to_path_buf(),
            source,
        },
        _ => WriteError::of(path, source),
    })
}

/// Writes `bytes` as the whole contents of `path`.
///
/// # Errors
/// [`WriteError`], naming the path, the cause and what to do; `path` then still holds what it held before.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write_with(path, |out| out.write_all(bytes))
}

/// Writes what `fill` produces as the whole contents of `path`. `out` is buffered.
///
/// # Errors
/// [`WriteError`]; an error of `fill` itself is passed on with the path, and nothing is left behind.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), WriteError> {
    let mut out = NewFile::create(path)?;
    fill(&mut out).map_err(|source| WriteError::of(path, source))?;
    out.commit()
}

/// A file that gets its name when it is complete. It is written to as it comes into being, buffered; dropped before
/// [`NewFile::commit`], it leaves no trace. A device or a pipe is written in place.
pub struct NewFile {
    path: PathBuf,
    out: BufWriter<Out>,
}

enum Out {
    Temporary(NamedTempFile),
    InPlace(File),
}

impl NewFile {
    /// Begins the file `path` under a temporary name.
    ///
    /// # Errors
    /// [`WriteError`], naming the path, the cause and what to do.
    pub fn create(path: &Path) -> Result<NewFile, WriteError> {
        let path = resolve_link(path);
        let out = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                return Err(WriteError::InTheWay {
                    path,
                    found: "a directory",
                });
            }
            Ok(found) if !found.is_file() => File::options().write(true).open(&path).map(Out::InPlace),
            _ => temporary_file(&path, &directory_of(&path)).map(Out::Temporary),
        };
        let out = out.map_err(|source| WriteError::of(&path, source))?;
        Ok(NewFile {
            path,
            out: BufWriter::with_capacity(1 << 20, out),
        })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, in place of another that has it.
    ///
    /// # Errors
    /// [`WriteError`]; `path` then still holds what it held before.
    pub fn commit(self) -> Result<(), WriteError> {
        let NewFile { path, out } = self;
        let commit = || {
            let Out::Temporary(temporary) = out.into_inner().map_err(|error| error.into_error())? else {
                return Ok(());
            };
            temporary.as_file().sync_all()?;
            temporary.persist(&path).map_err(|error| error.error)?;
            sync_directory(&directory_of(&path))
        };
        commit().map_err(|source| WriteError::of(&path, source))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Out::Temporary(out) => out.write(bytes),
            Out::InPlace(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Out::Temporary(out) => out.flush(),
            Out::InPlace(out) => out.flush(),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a whole directory: `fill` gets the path of an empty directory and puts files into it; the directory then
/// takes the name `path`. A directory that already has this name is replaced. Files directly in it are flushed; files
/// in further subdirectories are not.
///
/// Replacing is two renames: between them (and after a crash between them) the old contents stand beside the target
/// under `.NAME.old`, complete.
///
/// # Errors
/// [`WriteError`]; an error of `fill` is passed on unchanged, and the old directory stays.
pub fn write_directory<E: From<WriteError>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let path = &resolve_link(path);
    if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
        return Err(WriteError::InTheWay {
            path: path.clone(),
            found: "a file",
        }
        .into());
    }
    let directory = directory_of(path);
    let temporary = temporary_directory(path, &directory).map_err(|source| WriteError::of(path, source))?;
    fill(temporary.path())?;
    let exchange = || {
        for entry in fs::read_dir(temporary.path())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        sync_directory(temporary.path())?;
        let old = directory.join(format!(".{}.old", name_of(path)));
        if path.exists() {
            if old.exists() {
                fs::remove_dir_all(&old)?;
            }
            fs::rename(path, &old)?;
        }
        if let Err(error) = fs::rename(temporary.path(), path) {
            if old.exists() {
                fs::rename(&old, path)?;
            }
            return Err(error);
        }
        sync_directory(&directory)?;
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        Ok(())
    };
    let exchanged = exchange().map_err(|source| E::from(WriteError::of(path, source)));
    if exchanged.is_ok() {
        // The directory now lives under its final name: nothing is left to clean up.
        let _ = temporary.keep();
    }
    exchanged
}

/// The file that a symbolic link finally points to; the path itself where there is no link (or a dangling one).
fn resolve_link(path: &Path) -> PathBuf {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()),
        _ => path.to_path_buf(),
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `tempfile` makes private files (0600); a result gets the rights of the file that it replaces, or those that the
/// user's umask gives to any other new file.
fn temporary_file(path: &Path, directory: &Path) -> io::Result<NamedTempFile> {
    let prefix = format!(".{}.", name_of(path));
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(fs::metadata(path).map_or_else(|_| rights(0o666), |found| found.permissions()));
    builder.tempfile_in(directory)
}

fn temporary_directory(path: &Path, directory: &Path) -> io::Result<TempDir> {
    let prefix = format!(".{}.", name_of(path));
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(rights(0o777));
    builder.tempdir_in(directory)
}

#[cfg(unix)]
fn rights(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// Flushes a directory's entries, so that the rename itself survives a power cut. Windows has no such call and flushes
/// entries with the file.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_written_file_holds_exactly_the_bytes_and_nothing_stays_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        write(&path, b"first").unwrap();
        write(&path, b"second, longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second, longer");
        assert_eq!(names(directory.path()), ["report.json"]);
    }

    #[test]
    fn a_failing_writer_leaves_the_old_contents_and_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.bin");
        write(&path, b"old").unwrap();
        let error = write_with(&path, |out| {
            out.write_all(&[7; 5000])?;
            Err(io::Error::from(ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(matches!(error, WriteError::DiskFull { .. }), "{error:?}");
        assert!(
            error.to_string().contains("model.bin") && error.to_string().contains("free some space"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["model.bin"]);
    }

    #[test]
    fn a_missing_directory_is_named_with_its_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("absent/report.json"), b"x").unwrap_err();
        assert!(matches!(error, WriteError::NoDirectory { .. }), "{error:?}");
        assert!(
            error.to_string().contains("absent") && error.to_string().contains("create it"),
            "{error}"
        );
    }

    #[test]
    fn a_place_is_tried_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        check_writable(&directory.path().join("deep/down")).unwrap();
        check_writable(directory.path()).unwrap();
        assert_eq!(names(directory.path()), [""; 0]);
        write(&directory.path().join("file"), b"x").unwrap();
        let error = check_writable(&directory.path().join("file/run")).unwrap_err();
        assert!(
            matches!(error, WriteError::InTheWay { found: "a file", .. }),
            "{error:?}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_place_that_nobody_can_write_to_is_refused() {
        let error = check_writable(Path::new("/proc/run/deep")).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("/proc/run/deep") && message.contains("another place"),
            "{message}"
        );
    }

    #[test]
    fn a_directory_in_the_way_of_a_file_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        fs::create_dir(&path).unwrap();
        assert!(matches!(
            write(&path, b"x").unwrap_err(),
            WriteError::InTheWay {
                found: "a directory",
                ..
            }
        ));
        assert!(path.is_dir());
    }

    #[cfg(unix)]
    #[test]
    fn a_real_full_disk_is_reported_as_such() {
        let error = write(Path::new("/dev/full"), b"x").unwrap_err();
        assert!(matches!(error, WriteError::DiskFull { .. }), "{error:?}");
        assert!(
            !fs::metadata("/dev/full").unwrap().is_file(),
            "the device was replaced by a file"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_stays_a_link_and_rights_stay_those_of_the_replaced_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("real.txt"), directory.path().join("link.txt"));
        write(&file, b"old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_gets_the_same_rights_as_any_other_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (plain, atomic) = (directory.path().join("plain"), directory.path().join("atomic"));
        fs::write(&plain, b"x").unwrap();
        write(&atomic, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&atomic), mode(&plain));
    }

    #[test]
    fn a_directory_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        write_directory::<WriteError>(&path, |to| write(&to.join("a"), b"1")).unwrap();
        write_directory::<WriteError>(&path, |to| write(&to.join("b"), b"2")).unwrap();
        assert_eq!(names(&path), ["b"]);
        assert_eq!(names(directory.path()), ["model"]);
    }

    #[test]
    fn a_directory_that_cannot_be_filled_leaves_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        write_directory::<WriteError>(&path, |to| write(&to.join("a"), b"1")).unwrap();
        let failed = write_directory::<WriteError>(&path, |to| {
            write(&to.join("b"), b"2")?;
            Err(WriteError::InTheWay {
                path: to.to_path_buf(),
                found: "a file",
            })
        });
        assert!(failed.is_err());
        assert_eq!(names(&path), ["a"]);
        assert_eq!(names(directory.path()), ["model"]);
    }
}
