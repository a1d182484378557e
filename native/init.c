/*
 * The first process of a container started with --init: starts the real program, passes signals on to it and reaps what
 * is orphaned. Ends with the program's own status (128 + n after a signal), as a shell would.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "roles.h"

static _Noreturn void run_program(char **argv, const sigset_t *original)
{
	/* Own process group, in the foreground of the terminal if there is one: Ctrl-C then reaches the program. */
	setpgid(0, 0);
	sigset_t stop;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTTOU);
	sigprocmask(SIG_BLOCK, &stop, NULL);
	tcsetpgrp(STDIN_FILENO, getpgrp());
	sigprocmask(SIG_SETMASK, original, NULL);
	execvp(argv[0], argv);
	int failure = errno;
	fprintf(stderr, "[FATAL init] exec %s failed: %s\n", argv[0], strerror(failure));
	_exit(failure == ENOENT ? 127 : 126);
}

static int status_of(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* Reaps all that ended; returns the program's status once it is among them, else -1. */
static int reap(pid_t program)
{
	int found = -1;
	for (;;) {
		int wait_status;
		pid_t pid = waitpid(-1, &wait_status, WNOHANG);
		if (pid <= 0)
			return found;
		if (pid == program)
			found = status_of(wait_status);
	}
}

int init_main(int argc, char **argv)
{
	int first = 1;
	if (first < argc && strcmp(argv[first], "--") == 0)
		first++;
	if (first >= argc) {
		fprintf(stderr, "usage: docker-init -- program [argument...]\n");
		return 2;
	}

	/* Faults of our own are not signals to pass on. */
	sigset_t all, original;
	sigfillset(&all);
	static const int own[] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS, SIGTTIN, SIGTTOU };
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		sigdelset(&all, own[i]);
	sigprocmask(SIG_BLOCK, &all, &original);
	/* A read or write of the terminal from the background would stop pid 1. */
	signal(SIGTTIN, SIG_IGN);
	signal(SIGTTOU, SIG_IGN);

	pid_t program = fork();
	if (program < 0) {
		fprintf(stderr, "[FATAL init] fork failed: %s\n", strerror(errno));
		return 1;
	}
	if (program == 0) {
		signal(SIGTTIN, SIG_DFL);
		signal(SIGTTOU, SIG_DFL);
		run_program(argv + first, &original);
	}

	for (;;) {
		int number = sigwaitinfo(&all, NULL);
		if (number < 0)
			continue;
		if (number != SIGCHLD) {
			kill(program, number);
			continue;
		}
		int status = reap(program);
		if (status >= 0)
			return status;
	}
}
