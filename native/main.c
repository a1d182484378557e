/*
 * One static program, three roles: `launcher` (forks shims), `netns-pool` (holds network namespaces) and, by the name it is
 * mounted under in a container, `docker-init` (first process of --init). Shims are forks of the launcher.
 */
#include <stdio.h>
#include <string.h>

#include "roles.h"

int main(int argc, char **argv)
{
	const char *slash = argc >= 1 ? strrchr(argv[0], '/') : NULL;
	if (slash != NULL && strcmp(slash, "/docker-init") == 0)
		return init_main(argc, argv);
	if (argc >= 2 && strcmp(argv[1], "launcher") == 0)
		return launcher_main(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "netns-pool") == 0)
		return netns_pool_main(argc - 1, argv + 1);
	fprintf(stderr, "usage: skiff-native launcher|netns-pool ...\n");
	return 2;
}
