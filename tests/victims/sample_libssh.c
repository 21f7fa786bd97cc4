/* Loads the libssh named by argv[1] and calls it on command. Sessions here have no connection.
 *
 * `hexa BYTES` prints what ssh_get_hexa makes of so many bytes, `fingerprint BYTES` what ssh_get_fingerprint_hash
 * does, which calls it: the text or `null`. Both let the library allocate at the beginning of a page whose
 * predecessor can't be accessed, as a checking allocator does, so that a write in front of the buffer faults.
 * `user NAME` and `host NAME` set options of a new session and print `rc N user U`, where U is the name that the
 * session has then, `-` if none, and `port N` sets another option. `user` alone sets NULL, the local user.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void __libc_free(void *);
static int guarded;
static char *handed_out[64];
static unsigned count;

/* The library finds these two first. */
void *malloc(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!guarded || size > page || count == sizeof handed_out / sizeof *handed_out)
        return __libc_malloc(size);
    char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (two == MAP_FAILED || mprotect(two, page, PROT_NONE))
        return NULL;
    return handed_out[count++] = two + page;
}

/* Guarded memory stays: there is little of it. */
void free(void *memory)
{
    for (unsigned i = 0; i < count; i++)
        if (handed_out[i] == memory)
            return;
    __libc_free(memory);
}

enum option { HOST = 0, PORT = 1, USER = 4 };

static void *(*new_session)(void);
static void (*free_session)(void *);
static int (*set_option)(void *, enum option, const void *);
static int (*get_option)(void *, enum option, char **);

static void try_option(enum option option, const void *value)
{
    void *session = new_session();
    char *user = NULL;
    int rc = set_option(session, option, value);
    if (get_option(session, USER, &user))
        user = NULL;
    printf("rc %d user %s\n", rc, user ? user : "-");
    free_session(session);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s libssh.so.4\n", argv[0]);
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    char *(*hexa)(const unsigned char *, size_t) = dlsym(library, "ssh_get_hexa");
    char *(*fingerprint)(int, unsigned char *, size_t) = dlsym(library, "ssh_get_fingerprint_hash");
    new_session = dlsym(library, "ssh_new");
    free_session = dlsym(library, "ssh_free");
    set_option = dlsym(library, "ssh_options_set");
    get_option = dlsym(library, "ssh_options_get");
    if (!hexa || !fingerprint || !new_session || !free_session || !set_option || !get_option) {
        fprintf(stderr, "%s has no such functions\n", argv[1]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");

    unsigned char bytes[16];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(0xa0 + i);
    char line[512];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        unsigned long size;
        if (sscanf(line, "hexa %lu", &size) == 1 && size <= sizeof bytes) {
            guarded = 1;
            char *text = hexa(bytes, size);
            guarded = 0;
            puts(text ? text : "null");
        } else if (sscanf(line, "fingerprint %lu", &size) == 1 && size <= sizeof bytes) {
            guarded = 1;
            char *text = fingerprint(1 /* MD5 */, bytes, size);
            guarded = 0;
            puts(text ? text : "null");
        } else if (!strcmp(line, "user")) {
            try_option(USER, NULL);
        } else if (!strncmp(line, "user ", 5)) {
            try_option(USER, line + 5);
        } else if (!strncmp(line, "host ", 5)) {
            try_option(HOST, line + 5);
        } else if (!strncmp(line, "port ", 5)) {
            unsigned port = (unsigned)strtoul(line + 5, NULL, 10);
            try_option(PORT, &port);
        } else {
            puts("unknown command");
        }
    }
    return 0;
}
