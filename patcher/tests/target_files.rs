//! Files that are not where they were: deleted, replaced, overwritten, in memory only, in another mount namespace.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod target_support;

use std::fs;
use std::os::unix::fs::FileExt;

use target_support::*;
use upatch::target::*;

#[test]
fn deleted_and_replaced_files() {
    let shop = Workshop::new();
    let binary = shop.victim("gone", WORK, &["-rdynamic"]);
    let (start, size) = nm(&binary, "work");
    let query = TargetQuery::function(Some("exe"), "work", ids(&binary));
    let victim = shop.start(&binary);
    fs::remove_file(&binary).unwrap();
    // Root reads it through map_files; others from memory, where dynamic symbols remain.
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let site = snapshot.resolve(&memory, &query).unwrap();
    assert!(site.module().is_deleted());
    check_site(&memory, &site, start, size, site.source());
    let only = MemoryOnly(&memory);
    let site = TargetImage::snapshot(&only)
        .unwrap()
        .resolve(&only, &query)
        .unwrap();
    check_site(&only, &site, start, size, Source::Memory);
    // Another program takes the path: other inode, other build-id. The running one still resolves as what it is.
    let other = shop.victim(
        "gone",
        "__attribute__((noipa)) int work(int x) { return x; }",
        &["-rdynamic"],
    );
    assert_ne!(query.build_ids, ids(&other));
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let site = snapshot.resolve(&memory, &query).unwrap();
    check_site(&memory, &site, start, size, site.source());
    let wrong = TargetQuery {
        build_ids: ids(&other),
        ..query
    };
    let error = snapshot.resolve(&memory, &wrong).unwrap_err();
    assert!(
        matches!(&error, ResolveError::ModuleMismatch { named, .. } if named.len() == 1),
        "{error}"
    );
    assert_eq!(error.failure(), Failure::NotFound);
}

#[test]
fn replaced_file_is_not_opened_by_path() {
    let shop = Workshop::new();
    let binary = shop.victim("swapped", WORK, &[]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let maps = memory.mappings().unwrap();
    let mapping = maps
        .iter()
        .find(|one| one.path() == Some(&binary))
        .expect("a mapping")
        .clone();
    // A directory without map_files stands for a caller who may not use them.
    let proc = shop.path("proc");
    fs::create_dir(&proc).unwrap();
    std::os::unix::fs::symlink("/", proc.join("root")).unwrap();
    memory::open_mapping_file(&proc, &mapping).unwrap();
    fs::rename(&binary, shop.path("aside")).unwrap();
    fs::copy(shop.path("aside"), &binary).unwrap();
    let error = memory::open_mapping_file(&proc, &mapping).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn overwritten_in_place() {
    let shop = Workshop::new();
    let library = "__attribute__((noipa)) int work(int x) { return x * 5; }";
    shop.write("libinplace.c", library);
    shop.run(
        "gcc",
        &[
            "-O2",
            "-shared",
            "-fPIC",
            "-Wl,--build-id=sha1",
            "-o",
            "libinplace.so",
            "libinplace.c",
        ],
    );
    shop.write("inplace.c", MAIN);
    shop.run(
        "gcc",
        &["-O2", "-o", "inplace", "inplace.c", "-L.", "-linplace"],
    );
    let path = shop.path("libinplace.so");
    let id = ids(&path);
    let victim = shop.start(&shop.path("inplace"));
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let site = snapshot
        .resolve(
            &memory,
            &TargetQuery::function(Some("libinplace.so"), "work", id.clone()),
        )
        .unwrap();
    // One instruction of the file is overwritten: the page cache is shared, so memory changes too.
    let offset = {
        let image = image(&path);
        let segment = image.segment_of(site.svma()).unwrap();
        segment.offset + site.svma().since(segment.svma).unwrap()
    };
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0x90], offset).unwrap();
    let error = site.compare_memory(&memory).unwrap_err();
    assert!(
        matches!(
            error,
            ResolveError::TextChanged {
                memory: 0x90,
                foreign: Foreign::Unknown,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.failure(), Failure::Refused);
}

#[test]
fn a_library_in_a_memfd() {
    let shop = Workshop::new();
    shop.write(
        "libm1.c",
        "__attribute__((noipa)) int hidden(int x) { return x * 7; }",
    );
    shop.run(
        "gcc",
        &[
            "-O2",
            "-shared",
            "-fPIC",
            "-Wl,--build-id=0xfeedfacecafebeef",
            "-o",
            "libm1.so",
            "libm1.c",
        ],
    );
    let source = r#"
#define _GNU_SOURCE
#include <sys/mman.h>
#include <fcntl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((noipa)) int work(int x) {
  char buf[65536], path[64]; int from = open("libm1.so", O_RDONLY), to = memfd_create("mine", 0); long n;
  while ((n = read(from, buf, sizeof buf)) > 0) if (write(to, buf, n) != n) return -1;
  sprintf(path, "/proc/self/fd/%d", to);
  void *lib = dlopen(path, RTLD_NOW); int (*f)(int) = lib ? dlsym(lib, "hidden") : 0; return f ? f(x) : -1; }
"#;
    let binary = shop.victim("memfd", source, &["-ldl"]);
    let victim = Victim::start(std::process::Command::new(binary).current_dir(shop.dir.path()));
    let (start, size) = nm(&shop.path("libm1.so"), "hidden");
    let query = TargetQuery::function(
        Some("memfd:mine"),
        "hidden",
        vec!["feedface".parse().unwrap()],
    );
    let memory = victim.memory();
    let site = TargetImage::snapshot(&memory)
        .unwrap()
        .resolve(&memory, &query)
        .unwrap();
    check_site(&memory, &site, start, size, site.source());
    let only = MemoryOnly(&memory);
    let site = TargetImage::snapshot(&only)
        .unwrap()
        .resolve(&only, &query)
        .unwrap();
    check_site(&only, &site, start, size, Source::Memory);
}

#[test]
fn a_process_that_ended() {
    let shop = Workshop::new();
    let binary = shop.victim("ended", WORK, &[]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let query = TargetQuery::function(Some("exe"), "work", ids(&binary));
    let site = TargetImage::snapshot(&memory)
        .unwrap()
        .resolve(&memory, &query)
        .unwrap();
    drop(victim);
    let error = site.compare_memory(&memory).unwrap_err();
    assert_eq!(error.failure(), Failure::NotFound, "{error:?}");
    let error = TargetImage::snapshot(&memory).unwrap_err();
    assert_eq!(error.failure(), Failure::NotFound, "{error:?}");
}

/// A file that only the victim's mount namespace shows, found through its root without map_files.
#[test]
fn another_mount_namespace() {
    let shop = Workshop::new();
    let binary = shop.victim("apart", WORK, &[]);
    let (start, size) = nm(&binary, "work");
    let id = ids(&binary);
    let mount = shop.path("mount");
    fs::create_dir(&mount).unwrap();
    let script = "mount -t tmpfs none mount && cp apart mount/inside && exec mount/inside";
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .current_dir(shop.dir.path());
    let allowed = std::process::Command::new("unshare")
        .args(["-m", "true"])
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        upatch_tests::skip::skip(
            "target_files::mount_namespace",
            "mount namespaces need privileges",
        );
        return;
    }
    let victim = Victim::start(&mut command);
    let inside = mount.join("inside");
    assert!(!inside.exists(), "the mount must not be ours");
    let query = TargetQuery::function(Some("exe"), "work", id.clone());
    let site = check(&victim, &query, start, size, Source::File);
    assert_eq!(site.module().path(), inside);
    let by_path = TargetQuery::function(inside.to_str(), "work", id);
    check(&victim, &by_path, start, size, Source::File);
    let mapping = site.module().mappings().first().unwrap();
    let proc = shop.path("proc");
    fs::create_dir(&proc).unwrap();
    let root = format!("/proc/{}/root", victim.pid());
    std::os::unix::fs::symlink(root, proc.join("root")).unwrap();
    memory::open_mapping_file(&proc, mapping).unwrap();
}

/// A file that gets another name while it runs stays the same file.
#[test]
fn renamed_while_running() {
    let shop = Workshop::new();
    let binary = shop.victim("before", WORK, &[]);
    let query = TargetQuery::function(Some("exe"), "work", ids(&binary));
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let site = resolve(&victim, &query).unwrap();
    fs::rename(&binary, shop.path("after")).unwrap();
    site.compare_memory(&memory).unwrap();
    assert!(
        resolve(&victim, &query)
            .unwrap()
            .module()
            .is_called("after")
    );
}

/// A FIFO in the file's place must not hold us up.
#[test]
fn a_fifo_at_the_path() {
    let shop = Workshop::new();
    let binary = shop.victim("pipe", WORK, &[]);
    let victim = shop.start(&binary);
    let memory = victim.memory();
    let maps = memory.mappings().unwrap();
    let mapping = maps.iter().find(|one| one.path() == Some(&binary)).unwrap();
    fs::remove_file(&binary).unwrap();
    shop.run("mkfifo", &["pipe"]);
    let proc = shop.path("proc");
    fs::create_dir(&proc).unwrap();
    std::os::unix::fs::symlink("/", proc.join("root")).unwrap();
    assert!(memory::open_mapping_file(&proc, mapping).is_err());
}
