/* Calls functions of the C library on command and prints what they returned, with errno.
 *
 * `iconv TO FROM` opens a conversion and closes it: `ok` or `failed ERRNO`. `convert` turns UTF-8 into ISO-8859-1 and
 * prints the bytes. `system COMMAND` prints `status N errno E`; `shell` asks system(NULL) whether there is a shell;
 * `popen COMMAND` prints the first line that the command wrote. `resolve HOST` prints `ok` or `failed CODE`; `listen` asks
 * for an address to listen at. `writev N N …` writes pieces of so many bytes, at most 8, to /dev/null, `writev_at ADDRESS
 * COUNT` an array of pieces that may not be there: `wrote N errno E`.
 */
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static void try_iconv(const char *to, const char *from)
{
    errno = 0;
    iconv_t conversion = iconv_open(to, from);
    if (conversion == (iconv_t)-1) {
        printf("failed %d\n", errno);
        return;
    }
    iconv_close(conversion);
    puts("ok");
}

static void convert(void)
{
    char in[] = "\xc3\xa9t\xc3\xa9", out[16], *from = in, *to = out;
    size_t left = strlen(in), room = sizeof out;
    iconv_t conversion = iconv_open("ISO-8859-1", "UTF-8");
    if (conversion == (iconv_t)-1 || iconv(conversion, &from, &left, &to, &room) == (size_t)-1) {
        puts("failed");
        return;
    }
    iconv_close(conversion);
    for (char *byte = out; byte < to; byte++)
        printf("%02x", (unsigned char)*byte);
    putchar('\n');
}

static void try_popen(const char *command)
{
    char answer[128] = "";
    FILE *pipe = popen(command, "r");
    if (!pipe || !fgets(answer, sizeof answer, pipe)) {
        puts("failed");
        if (pipe)
            pclose(pipe);
        return;
    }
    pclose(pipe);
    fputs(answer, stdout);
}

static void resolve(const char *host)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = host ? 0 : AI_PASSIVE}, *found;
    int code = getaddrinfo(host, "80", &hints, &found);
    if (code) {
        printf("failed %d\n", code);
        return;
    }
    freeaddrinfo(found);
    puts("ok");
}

static void try_writev(const struct iovec *pieces, int count)
{
    int to = open("/dev/null", O_WRONLY);
    errno = 0;
    ssize_t wrote = writev(to, pieces, count);
    printf("wrote %zd errno %d\n", wrote, errno);
    close(to);
}

static void write_pieces(char *lengths)
{
    static char bytes[1 << 20];
    struct iovec pieces[8];
    int count = 0;
    for (char *word = strtok(lengths, " "); word && count < 8; word = strtok(NULL, " "))
        pieces[count++] = (struct iovec){bytes, strtoull(word, NULL, 0)};
    try_writev(pieces, count);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    char line[1024], to[300], from[300];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "iconv %299s %299s", to, from) == 2) {
            try_iconv(to, from);
        } else if (!strcmp(line, "convert")) {
            convert();
        } else if (!strncmp(line, "system ", 7)) {
            errno = 0;
            int status = system(line + 7);
            printf("status %d errno %d\n", status, errno);
        } else if (!strcmp(line, "shell")) {
            printf("%d\n", system(NULL) != 0);
        } else if (!strncmp(line, "popen ", 6)) {
            try_popen(line + 6);
        } else if (!strncmp(line, "resolve ", 8)) {
            resolve(line + 8);
        } else if (!strcmp(line, "listen")) {
            resolve(NULL);
        } else if (!strncmp(line, "writev ", 7)) {
            write_pieces(line + 7);
        } else if (sscanf(line, "writev_at %299s %299s", to, from) == 2) {
            try_writev((void *)strtoull(to, NULL, 0), atoi(from));
        } else {
            puts("unknown command");
        }
    }
    return 0;
}
