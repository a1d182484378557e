#ifndef SKIFF_STDIO_CLIENT_H
#define SKIFF_STDIO_CLIENT_H

/* The clients of a `struct stdio`: between stdio-stream.c and stdio-client.c only. */
#include "stdio-stream.h"

bool client_add(struct stdio *stdio, int fd, unsigned streams);
void clients_send(struct stdio *stdio, int stream, const uint8_t *data, size_t length);
/* Reads what clients have to say, as long as the process takes it. */
void clients_pump_input(struct stdio *stdio);
/* Some client's buffer is full and it is not yet given up. */
bool clients_heavy(const struct stdio *stdio);
void clients_check_stall(struct stdio *stdio);
void clients_finish(struct stdio *stdio);

/* Back in stdio-stream.c. */
void stdio_clients_changed(struct stdio *stdio);
bool stdio_takes_input(const struct stdio *stdio);
void stdio_input(struct stdio *stdio, const uint8_t *data, size_t length);

#endif
