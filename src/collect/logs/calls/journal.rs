//! Reads the messages of a container from the systemd journal, with the host's library libsystemd.
//!
//! Docker's driver `journald` writes each line, or fragment of a line, as an entry with these fields: `MESSAGE`, `PRIORITY` (3 for
//! stderr), `CONTAINER_ID_FULL`, and for fragments `CONTAINER_PARTIAL_MESSAGE` and `CONTAINER_PARTIAL_LAST`. The binary of the agent
//! does not need the library. It is loaded when the first such log is read.

#![expect(unsafe_code, reason = "libsystemd is a C library")]

use std::ffi::{c_char, c_int, c_void};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use libloading::{Library, Symbol};

use super::fetch::Message;
use crate::collect::logs::tail::Channel;

const LIBRARY: &str = "libsystemd.so.0";
/// The folders in which the journal has a folder for each machine.
const FOLDERS: [&str; 2] = ["/run/log/journal", "/var/log/journal"];
/// Opens only journals of this host, and only those of the system. See `sd_journal_open(3)`.
const OPEN_FLAGS: c_int = 1 | 4;
/// The priority of messages on stderr.
const STDERR: &[u8] = b"3";

type Handle = *mut c_void;

/// The functions of the library. See `sd-journal(3)`.
struct Functions {
    open: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    close: unsafe extern "C" fn(Handle),
    process: unsafe extern "C" fn(Handle) -> c_int,
    get_fd: unsafe extern "C" fn(Handle) -> c_int,
    add_match: unsafe extern "C" fn(Handle, *const c_void, usize) -> c_int,
    flush_matches: unsafe extern "C" fn(Handle),
    seek_head: unsafe extern "C" fn(Handle) -> c_int,
    seek_tail: unsafe extern "C" fn(Handle) -> c_int,
    seek_time: unsafe extern "C" fn(Handle, u64) -> c_int,
    next: unsafe extern "C" fn(Handle) -> c_int,
    previous_skip: unsafe extern "C" fn(Handle, u64) -> c_int,
    get_time: unsafe extern "C" fn(Handle, *mut u64) -> c_int,
    get_data: unsafe extern "C" fn(Handle, *const c_char, *mut *const c_void, *mut usize) -> c_int,
    /// Never unloaded, because the functions belong to it.
    _library: Library,
}

/// Loads the library. Only the first call does work.
fn functions() -> Result<&'static Functions, String> {
    static LOADED: OnceLock<Result<Functions, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| load().map_err(|error| error.to_string()));
    loaded.as_ref().map_err(Clone::clone)
}

fn load() -> Result<Functions, libloading::Error> {
    // SAFETY: libsystemd has no initialization with conditions, and the types of the functions are those of its header.
    unsafe {
        let library = Library::new(LIBRARY)?;
        fn of<T: Copy>(library: &Library, name: &str) -> Result<T, libloading::Error> {
            // SAFETY: the caller names a function of this type.
            let symbol: Symbol<'_, T> = unsafe { library.get(name.as_bytes())? };
            Ok(*symbol)
        }
        Ok(Functions {
            open: of(&library, "sd_journal_open")?,
            close: of(&library, "sd_journal_close")?,
            process: of(&library, "sd_journal_process")?,
            get_fd: of(&library, "sd_journal_get_fd")?,
            add_match: of(&library, "sd_journal_add_match")?,
            flush_matches: of(&library, "sd_journal_flush_matches")?,
            seek_head: of(&library, "sd_journal_seek_head")?,
            seek_tail: of(&library, "sd_journal_seek_tail")?,
            seek_time: of(&library, "sd_journal_seek_realtime_usec")?,
            next: of(&library, "sd_journal_next")?,
            previous_skip: of(&library, "sd_journal_previous_skip")?,
            get_time: of(&library, "sd_journal_get_realtime_usec")?,
            get_data: of(&library, "sd_journal_get_data")?,
            _library: library,
        })
    }
}

/// The open journal of the host.
pub(super) struct Journal {
    functions: &'static Functions,
    handle: Handle,
}

// SAFETY: the library allows the use of a journal by one thread at a time, which may differ from the thread that opened it.
unsafe impl Send for Journal {}

impl Drop for Journal {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and is not used again.
        unsafe { (self.functions.close)(self.handle) };
    }
}

impl Journal {
    /// Opens the journal.
    ///
    /// # Errors
    /// Fails if the host has no libsystemd or no journal, or if the agent cannot read the journal.
    pub(super) fn open() -> io::Result<Self> {
        check_readable()?;
        let functions = functions().map_err(io::Error::other)?;
        let mut handle = null_mut();
        // SAFETY: the library writes a handle if it succeeds.
        checked(unsafe { (functions.open)(&raw mut handle, OPEN_FLAGS) })?;
        let journal = Self { functions, handle };
        // From now on the library notices new files of the journal.
        // SAFETY: the handle is open, as in all calls below.
        checked(unsafe { (functions.get_fd)(handle) })?;
        Ok(journal)
    }

    /// Selects the messages of a container. Messages that were written meanwhile are found too.
    fn select(&mut self, id: &str) -> io::Result<()> {
        let of_container = format!("CONTAINER_ID_FULL={id}");
        // SAFETY: the library copies the text.
        unsafe {
            checked((self.functions.process)(self.handle))?;
            (self.functions.flush_matches)(self.handle);
            let text = of_container.as_ptr().cast();
            checked((self.functions.add_match)(
                self.handle,
                text,
                of_container.len(),
            ))?;
        }
        Ok(())
    }

    /// Goes to the beginning of a container's messages, or to the first one that was written at or after a time in Unix seconds.
    pub(super) fn seek(&mut self, id: &str, since: Option<u64>) -> io::Result<()> {
        self.select(id)?;
        // SAFETY: see `open`.
        checked(match since {
            Some(since) => unsafe { (self.functions.seek_time)(self.handle, since * 1_000_000) },
            None => unsafe { (self.functions.seek_head)(self.handle) },
        })?;
        Ok(())
    }

    /// Returns the newest `count` messages of a container, oldest first.
    pub(super) fn newest(&mut self, id: &str, count: usize) -> io::Result<Vec<Message>> {
        let first = self.first_of_newest(id, count as u64)?;
        let mut messages: Vec<_> = first.into_iter().collect();
        while messages.len() < count
            && let Some(message) = self.next()?
        {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Goes to the first of the newest `count` messages of a container, and returns it.
    pub(super) fn first_of_newest(&mut self, id: &str, count: u64) -> io::Result<Option<Message>> {
        self.select(id)?;
        // SAFETY: see `open`.
        let found = unsafe {
            checked((self.functions.seek_tail)(self.handle))?;
            checked((self.functions.previous_skip)(self.handle, count))?
        };
        match found {
            0 => Ok(None),
            _ => self.current(),
        }
    }

    /// Goes to the next message and returns it. None at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Message>> {
        // SAFETY: see `open`.
        while checked(unsafe { (self.functions.next)(self.handle) })? > 0 {
            if let Some(message) = self.current()? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// Returns the message at the current place. None if the entry is not a message.
    fn current(&self) -> io::Result<Option<Message>> {
        let mut microseconds = 0;
        // SAFETY: see `open`.
        checked(unsafe { (self.functions.get_time)(self.handle, &raw mut microseconds) })?;
        let Some(text) = self.field(c"MESSAGE") else {
            return Ok(None);
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(microseconds);
        let mut message = humantime::format_rfc3339_nanos(time)
            .to_string()
            .into_bytes();
        message.push(b' ');
        message.extend_from_slice(text);
        let is = |field| self.field(field).is_some_and(|value| value == b"true");
        if !is(c"CONTAINER_PARTIAL_MESSAGE") || is(c"CONTAINER_PARTIAL_LAST") {
            message.push(b'\n');
        }
        let channel = match self.field(c"PRIORITY") {
            Some(STDERR) => Channel::Stderr,
            _ => Channel::Stdout,
        };
        Ok(Some((channel, Bytes::from(message))))
    }

    /// Returns the value of a field. The value is valid until the next call of the library.
    fn field(&self, name: &std::ffi::CStr) -> Option<&[u8]> {
        let (mut data, mut length) = (std::ptr::null(), 0);
        // SAFETY: if the library succeeds, it writes the beginning and the length of `NAME=VALUE`. `current` copies the value of
        // MESSAGE before it asks for another field.
        let bytes: &[u8] = unsafe {
            let found = (self.functions.get_data)(
                self.handle,
                name.as_ptr(),
                &raw mut data,
                &raw mut length,
            );
            if found < 0 || data.is_null() {
                return None;
            }
            std::slice::from_raw_parts(data.cast(), length)
        };
        bytes.get(name.count_bytes() + 1..)
    }
}

/// Checks that the agent can read the journal of the system. The library itself opens a journal without error that it cannot read.
fn check_readable() -> io::Result<()> {
    let mut denied = None;
    for folder in FOLDERS {
        for machine in fs::read_dir(Path::new(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            match File::open(machine.path().join("system.journal")) {
                Ok(_) => return Ok(()),
                Err(error) => denied = Some(error),
            }
        }
    }
    Err(denied.unwrap_or_else(|| io::Error::other("there is no journal on this host")))
}

/// Turns a negative result, which is an error number, into an error.
fn checked(result: c_int) -> io::Result<c_int> {
    match result {
        0.. => Ok(result),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}
