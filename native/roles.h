#ifndef SKIFF_ROLES_H
#define SKIFF_ROLES_H

/* Each takes the role's own argv (argv[0] is the role's name) and returns the exit status. */
int launcher_main(int argc, char **argv);
int netns_pool_main(int argc, char **argv);
int init_main(int argc, char **argv);

#endif
