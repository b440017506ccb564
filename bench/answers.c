/* answers PATH: a server that answers 204 to each read, one client for ever. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const char ANSWER[] =
    "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char request[4096];
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client;

    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, argv[1]);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 1))
        return 1;
    client = accept(server, NULL, NULL);
    while (read(client, request, sizeof request) > 0)
        if (write(client, ANSWER, sizeof ANSWER - 1) < 0)
            return 1;
    return 0;
}
