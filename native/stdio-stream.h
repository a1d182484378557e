#ifndef SKIFF_STDIO_STREAM_H
#define SKIFF_STDIO_STREAM_H

/*
 * The terminal or the pipes of one process (a container's first or an exec's), its log and the clients attached to it.
 *
 * 1. Output is in the log before a client sees it.
 * 2. A client that takes nothing for a second while its buffer is full loses output, which is counted and announced by
 *    a marker; one that makes progress is waited for. No client holds a process for longer than that.
 * 3. Input is read from clients only when what was read before is gone, so a process that does not read costs nothing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json-log.h"
#include "loop.h"

struct client;

struct stdio {
	bool terminal;
	/* The first client that ends its input ends the process's. */
	bool stdin_once;
	bool reading;
	bool paused;
	bool finishing;
	/* The process has ended: a terminal without a slave is then at its end. */
	bool gone;
	bool input_ending;
	/* With a terminal `out[0]` is its master, for both directions. */
	struct watch out[2];
	struct watch in;
	struct json_log *log;
	struct client *clients;
	unsigned client_count;
	struct timer stall;
	struct timer reopen;
	uint8_t *pending;
	size_t pending_at, pending_length;
	unsigned rows, columns;
	/* Called whenever an output stream or a client is gone. */
	void (*changed)(struct stdio *stdio);
};

void stdio_init(struct stdio *stdio, bool terminal, bool stdin_once, struct json_log *log,
		void (*changed)(struct stdio *));

/* Makes pipes (or /dev/null for a closed stdin) and stores the process's ends. 0 or -1. */
int stdio_open_pipes(struct stdio *stdio, bool open_stdin, int child[3]);

/* Takes over the master of the process's terminal and gives it the size that was asked for before. */
void stdio_set_console(struct stdio *stdio, int master);

/* From now on output is read; before, it waits in the pipes. */
void stdio_begin(struct stdio *stdio);

/* `streams`: STREAM_STDIN, STREAM_STDOUT, STREAM_STDERR. Takes over the descriptor. False when there are too many. */
bool stdio_attach(struct stdio *stdio, int fd, unsigned streams);

/* The process is gone: reads what is left in the pipes, without waiting, up to a bound. */
void stdio_drain(struct stdio *stdio);

/* Both output streams have come to their end. */
bool stdio_output_ended(const struct stdio *stdio);

/* No more output: closes the descriptors, and each client once it has got everything (or takes nothing). */
void stdio_finish(struct stdio *stdio);

/* Ends the process's input once what is pending has been written; a terminal has no such end. */
void stdio_end_input(struct stdio *stdio);

int stdio_resize(struct stdio *stdio, unsigned rows, unsigned columns);

#endif
