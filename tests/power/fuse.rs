//! Serves a [`Disk`] as a file system: the kernel's FUSE protocol, as much of it as the server and its libraries use.
//!
//! Files are opened for direct I/O and nothing is cached, so each write(2) is one operation of the disk, at once. That
//! leaves `mmap` out, which neither raft-engine nor sled use; `sync_file_range` is answered by the kernel without a
//! word to us, and so makes nothing durable; `flock` is the kernel's own.

use crate::disk::{Disk, Ino, Op};
use crate::mount::Shared;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const ENOSYS: i32 = 38;
const ENOTEMPTY: i32 = 39;

const MAX_WRITE: usize = 1 << 20;
const DIRECT_IO: u32 = 1;
const INIT_BIG_WRITES: u32 = 1 << 5;
const INIT_MAX_PAGES: u32 = 1 << 22;
const FATTR_SIZE: u32 = 1 << 3;
const FATTR_MODE: u32 = 1 << 0;

/// The body of a request, read from its front.
struct Args<'a>(&'a [u8]);

impl Args<'_> {
    fn u32(&mut self) -> u32 {
        let (front, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u32::from_le_bytes(*front)
    }

    fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = &self.0[bytes..];
    }

    fn name(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(self.0[..end].to_vec()).unwrap();
        self.0 = &self.0[end + 1..];
        name
    }
}

#[derive(Default)]
struct Answer(Vec<u8>);

impl Answer {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn attributes(self, ino: Ino, disk: &Disk) -> Result<Self, i32> {
        let node = disk.node(ino).ok_or(ENOENT)?;
        let len = node.data.len() as u64;
        let kind = if node.is_dir { 0o040_000 } else { 0o100_000 };
        let answer = self.u64(ino).u64(len).u64(len.div_ceil(512)).u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        Ok(answer.u32(kind | (node.mode & 0o7777)).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0))
    }

    /// An entry whose name and attributes nobody may remember.
    fn entry(self, ino: Ino, disk: &Disk) -> Result<Self, i32> {
        self.u64(ino).u64(0).u64(0).u64(0).u32(0).u32(0).attributes(ino, disk)
    }
}

/// FORGET, INTERRUPT and BATCH_FORGET: want no answer.
const FORGET: [u32; 3] = [2, 36, 42];

/// One of the threads that answer the kernel.
pub struct Server {
    pub device: File,
    pub shared: Arc<Shared>,
    pub rng: ChaCha8Rng,
}

impl Server {
    pub fn run(mut self) {
        let mut buffer = vec![0; MAX_WRITE + 65536];
        loop {
            let len = match self.device.read(&mut buffer) {
                Ok(len) => len,
                // Interrupted before it was read, or by a signal.
                Err(e) if matches!(e.raw_os_error(), Some(ENOENT | 4)) => continue,
                // Unmounted.
                Err(_) => return,
            };
            let mut head = Args(&buffer[..len]);
            head.skip(4);
            let (opcode, unique, ino) = (head.u32(), head.u64(), head.u64());
            head.skip(16);
            if FORGET.contains(&opcode) {
                continue;
            }
            let (error, body) = match self.answer(opcode, ino, head) {
                Ok(answer) => (0, answer.0),
                Err(errno) => (-errno, Vec::new()),
            };
            let mut out = Vec::with_capacity(16 + body.len());
            out.extend((16 + body.len() as u32).to_le_bytes());
            out.extend(error.to_le_bytes());
            out.extend(unique.to_le_bytes());
            out.extend(body);
            // Whoever asked may be gone.
            let _ = self.device.write(&out);
        }
    }

    fn answer(&mut self, opcode: u32, ino: Ino, mut args: Args) -> Result<Answer, i32> {
        if opcode == 26 {
            let flags = INIT_BIG_WRITES | INIT_MAX_PAGES;
            let (write, pages) = (MAX_WRITE as u32, (MAX_WRITE / 4096) as u32);
            let answer = Answer::default().u32(7).u32(31).u32(0).u32(flags).u32(0).u32(write).u32(1);
            return Ok((0..8).fold(answer.u32(pages), |answer, _| answer.u32(0)));
        }
        if matches!(opcode, 20 | 30) {
            return self.sync(ino);
        }
        let mut disk = self.shared.disk.lock().unwrap();
        let capacity = {
            let mut behaviour = self.shared.behaviour.lock().unwrap();
            behaviour.off |= behaviour.off_at.is_some_and(|at| disk.operations() >= at);
            if behaviour.off {
                // Closing a file always succeeds.
                return if matches!(opcode, 18 | 29) { Ok(Answer::default()) } else { Err(EIO) };
            }
            behaviour.capacity
        };
        match opcode {
            1 => look_up(&disk, ino, &args.name()),
            3 => Answer::default().u64(0).u64(0).attributes(ino, &disk),
            4 => set_attributes(&mut disk, ino, args),
            8 | 9 | 35 => create(&mut disk, opcode, ino, args),
            10 | 11 => remove(&mut disk, ino, args.name()),
            12 | 45 => rename(&mut disk, opcode, ino, args),
            14 | 27 => {
                disk.node_mut(ino).ok_or(ENOENT)?.opened += 1;
                Ok(Answer::default().u64(0).u32(DIRECT_IO).u32(0))
            }
            18 | 29 => {
                // A power cut closes all, and the kernel may say so later.
                let node = disk.node_mut(ino).ok_or(ENOENT)?;
                node.opened = node.opened.saturating_sub(1);
                Ok(Answer::default())
            }
            15 => read(&disk, ino, args),
            16 => write(&mut disk, ino, args, capacity),
            17 => {
                let free = capacity.saturating_sub(disk.bytes()) / 4096;
                let answer =
                    Answer::default().u64(capacity / 4096).u64(free).u64(free).u64(1 << 20).u64(1 << 20);
                Ok((0..7).fold(answer.u32(4096).u32(255).u32(4096), |answer, _| answer.u32(0)))
            }
            28 => list(&disk, ino, args),
            43 => allocate(&mut disk, ino, args, capacity),
            _ => Err(ENOSYS),
        }
    }

    /// What was there when the sync began is durable when it ends.
    fn sync(&mut self, ino: Ino) -> Result<Answer, i32> {
        let before = self.shared.disk.lock().unwrap().operations();
        let sync_us = self.shared.behaviour.lock().unwrap().sync_us;
        if sync_us > 0 {
            std::thread::sleep(Duration::from_micros(self.rng.random_range(0..sync_us)));
        }
        let mut disk = self.shared.disk.lock().unwrap();
        let mut behaviour = self.shared.behaviour.lock().unwrap();
        behaviour.off |= behaviour.off_at.is_some_and(|at| disk.operations() >= at);
        if behaviour.off {
            return Err(EIO);
        }
        disk.apply(Op::Sync { ino, before });
        Ok(Answer::default())
    }
}

fn child(disk: &Disk, dir: Ino, name: &str) -> Option<Ino> {
    disk.node(dir)?.names.get(name).copied()
}

fn look_up(disk: &Disk, dir: Ino, name: &str) -> Result<Answer, i32> {
    Answer::default().entry(child(disk, dir, name).ok_or(ENOENT)?, disk)
}

fn set_attributes(disk: &mut Disk, ino: Ino, mut args: Args) -> Result<Answer, i32> {
    let valid = args.u32();
    args.skip(12);
    let size = args.u64();
    args.skip(44);
    let mode = args.u32();
    if valid & FATTR_SIZE != 0 {
        disk.apply(Op::Resize { ino, len: size as usize });
    }
    if valid & FATTR_MODE != 0 {
        disk.node_mut(ino).ok_or(ENOENT)?.mode = mode;
    }
    Answer::default().u64(0).u64(0).attributes(ino, disk)
}

/// mknod, mkdir, create.
fn create(disk: &mut Disk, opcode: u32, dir: Ino, mut args: Args) -> Result<Answer, i32> {
    let first = args.u32();
    let second = args.u32();
    let (mode, rest) = match opcode {
        8 => (first, 8),
        9 => (first, 0),
        _ => (second, 8),
    };
    args.skip(rest);
    let name = args.name();
    if child(disk, dir, &name).is_some() {
        return Err(EEXIST);
    }
    let ino = disk.fresh_ino();
    disk.apply(Op::Create { dir, name, ino, is_dir: opcode == 9, mode });
    let answer = Answer::default().entry(ino, disk)?;
    if opcode != 35 {
        return Ok(answer);
    }
    disk.node_mut(ino).ok_or(ENOENT)?.opened = 1;
    Ok(answer.u64(0).u32(DIRECT_IO).u32(0))
}

fn remove(disk: &mut Disk, dir: Ino, name: String) -> Result<Answer, i32> {
    let ino = child(disk, dir, &name).ok_or(ENOENT)?;
    if !disk.node(ino).ok_or(ENOENT)?.names.is_empty() {
        return Err(ENOTEMPTY);
    }
    disk.apply(Op::Remove { dir, name });
    Ok(Answer::default())
}

fn rename(disk: &mut Disk, opcode: u32, dir: Ino, mut args: Args) -> Result<Answer, i32> {
    let new_dir = args.u64();
    if opcode == 45 && args.u64() != 0 {
        return Err(EINVAL);
    }
    let (name, new_name) = (args.name(), args.name());
    child(disk, dir, &name).ok_or(ENOENT)?;
    let replaced = child(disk, new_dir, &new_name).and_then(|ino| disk.node(ino));
    if replaced.is_some_and(|node| !node.names.is_empty()) {
        return Err(ENOTEMPTY);
    }
    disk.apply(Op::Rename { from: (dir, name), to: (new_dir, new_name) });
    Ok(Answer::default())
}

fn read(disk: &Disk, ino: Ino, mut args: Args) -> Result<Answer, i32> {
    args.skip(8);
    let (at, size) = (args.u64() as usize, args.u32() as usize);
    let data = &disk.node(ino).ok_or(ENOENT)?.data;
    let from = at.min(data.len());
    Ok(Answer(data[from..(from + size).min(data.len())].to_vec()))
}

fn write(disk: &mut Disk, ino: Ino, mut args: Args, capacity: u64) -> Result<Answer, i32> {
    args.skip(8);
    let (at, size) = (args.u64() as usize, args.u32() as usize);
    args.skip(20);
    let data = args.0.get(..size).ok_or(EINVAL)?.to_vec();
    check_space(disk, ino, at + size, capacity)?;
    disk.apply(Op::Write { ino, at, data });
    Ok(Answer::default().u32(size as u32).u32(0))
}

fn allocate(disk: &mut Disk, ino: Ino, mut args: Args, capacity: u64) -> Result<Answer, i32> {
    args.skip(8);
    let end = (args.u64() + args.u64()) as usize;
    if args.u32() != 0 {
        return Err(95);
    }
    check_space(disk, ino, end, capacity)?;
    if end > disk.node(ino).ok_or(ENOENT)?.data.len() {
        disk.apply(Op::Resize { ino, len: end });
    }
    Ok(Answer::default())
}

fn check_space(disk: &Disk, ino: Ino, end: usize, capacity: u64) -> Result<(), i32> {
    let grows = end.saturating_sub(disk.node(ino).ok_or(ENOENT)?.data.len()) as u64;
    if grows > 0 && disk.bytes() + grows > capacity { Err(ENOSPC) } else { Ok(()) }
}

fn list(disk: &Disk, ino: Ino, mut args: Args) -> Result<Answer, i32> {
    args.skip(8);
    let (from, size) = (args.u64(), args.u32() as usize);
    let node = disk.node(ino).ok_or(ENOENT)?;
    let mut answer = Answer::default();
    // By number, which stays when others go: a directory is emptied while it is listed.
    let mut listed: Vec<(Ino, &String)> = node.names.iter().map(|(name, ino)| (*ino, name)).collect();
    listed.sort_unstable();
    for (child, name) in listed.into_iter().filter(|(child, _)| *child > from) {
        let kind = if disk.node(child).is_some_and(|node| node.is_dir) { 4 } else { 8 };
        let len = (24 + name.len()).next_multiple_of(8);
        if answer.0.len() + len > size {
            break;
        }
        let end = answer.0.len() + len;
        answer = answer.u64(child).u64(child).u32(name.len() as u32).u32(kind);
        answer.0.extend(name.as_bytes());
        answer.0.resize(end, 0);
    }
    Ok(answer)
}
