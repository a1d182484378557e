/** Command lines that the comparison of our command line with Docker's client runs on one and the same daemon. */

/** Answered without a daemon, or by its refusal: compared to the byte. */
export const refusals = `
run
run --foo x
run -Z x
run --help=false
ps --foo
ps extra
ps -- x
stop
stop --time abc x
nope
container nope
image nope x
volume nope
container --foo
image ls -x
pull
pull a b
pull -a busybox:1
rename a
inspect
exec
exec x
tag x
tag busybox 'A b'
tag busybox busybox@sha256:aaa
logs
rm
create
attach a b
top
update
update nope
volume create a b
commit a b c
export
logout x y
images a b c
help nope
-H
-H foo://x ps
-H tcp://127.0.0.1:1 ps
-H tcp://127.0.0.1:1 -H unix:///x ps
-H unix:///nope ps
-H unix:///nope run x
-c nope ps
-l foo ps
--config
--nope ps
ps --last x
ps --filter foo
ps --filter foo=bar
ps --format '{{.Foo'
ps --format '{{foo}}'
ps --format '{{.Foo}}'
ps -a --format 'table {{.ID}}\\t{{.Foo}}'
images --format '{{.Foo'
images --format '{{.Foo}}'
kill --signal
logs --tail
run -it busybox
run -d -a stdout x
run --rm --restart always x
run --rm=maybe x
run --memory
run -m abc x
run -m 1x x
run --cpus x x
run --pids-limit x x
run --blkio-weight 70000 x
run -p foo x
run -p 99999:80 x
run -p 81-80 x
run -p a:b:c x
run -p 1.2.3.4:80:80/foo x
run --expose foo x
run --expose 80:81 x
run -v '' x
run --mount foo x
run --mount type=bind x
run --mount type=volume,dst= x
run --mount type=bind,src=a,dst=b,readonly=zz x
run --mount type=volume,dst=/b,bind-propagation=rslave x
run --mount type=tmpfs,dst=/b,tmpfs-size=zz x
run --mount type=bind,foo=bar,dst=/x x
run --network a --network-alias
run --network= x
run --network=a --network=bridge x
run --network=a --network=a x
run --mac-address zz x
run --dns foo x
run --add-host foo x
run --add-host foo:1.2.3.4:5 x
run -e
run -e =x x
run --env-file nope x
run -l =x x
run --label-file nope x
run --attach foo x
run --ulimit x y
run --ulimit nofile=x y
run --ulimit foo=1 y
run --ulimit nofile=2:1 y
run --device foo x
run --device /dev/a:/b:q x
run --device-cgroup-rule foo x
run --device-read-bps foo x
run --blkio-weight-device foo x
run --sysctl foo x
run --memory-swappiness 200 x
run --shm-size x x
run --security-opt foo x
run --security-opt seccomp=nope x
run --storage-opt foo x
run --log-opt a=b --log-driver none x
run --restart on-failure:x x
run --restart :5 x
run --pid foo x
run --uts foo x
run --userns foo x
run --cgroupns foo x
run --health-cmd x --no-healthcheck x
run --health-interval 5 x
run --health-interval -5s x
run --pull foo x
run --platform foo/bar/baz/q x
run UPPER
run 'a b'
run -q --pull never nope
run nope.invalid/foo
pull nope.invalid/foo
inspect nope
inspect ''
inspect --type foo nope
inspect --type image nope
container inspect nope
image inspect nope
volume inspect nope
network inspect nope
rm nope
rm -f nope
rm ''
stop nope
kill nope
rmi nope
rmi -f nope
rmi 'a b'
start nope
start nope nope2
wait nope
wait -x
logs nope
exec nope x
attach nope
top nope
diff nope
port nope
rename nope x
pause nope
restart nope
tag nope x
history nope
commit nope
load -i nope
import nope
export nope
export nope -o /dev/null
volume rm nope
network rm nope
update -m 5m nope
login 127.0.0.1:1
login -u x
`;

/** Read what is there: compared to the byte, run one right after the other. */
export const readings = `
context ls
context show
context inspect
context ls --format json
ps -a
ps -a --no-trunc
ps -aq
ps -as
ps -a --format json
ps -a --format raw
ps -n 1
ps -l
ps --format table
ps -a --format 'table {{.ID}}\\t{{.Label "com.foo-bar_x"}}\\t{{upper .Names}}\\t{{json .Image}}\\t{{truncate .Image 3}}\\t{{pad .Image 1 1}}'
ps -a --format '{{.Names}} {{.Ports}} {{.Labels}} {{.Label "a"}} {{.Mounts}} {{.LocalVolumes}} {{.Networks}} {{.State}}'
ps -a --filter status=exited --filter name=cli
container ls --all --no-trunc --format '{{json .}}' --size=false
images
images --digests
images -q
images --no-trunc
images nope
images --format json
images --format raw
images --format 'table {{.ID}} {{.Repository}}  {{.Tag}}'
images --format '{{.Repository}}:{{.Tag}} {{split .Repository "u"}} {{title .Tag}} {{len .ID}} {{.Size}}'
history busybox
history -q --no-trunc busybox
history --format json busybox
history -H=false busybox
volume ls
volume ls --format json
volume ls --format raw
network ls
network ls --no-trunc
network ls --format raw
network inspect bridge
network inspect -f '{{.Id}} {{.Name}}' bridge
system df
system df -v
system df --format json
info -f '{{.ServerVersion}} {{.Driver}} {{.Plugins}} {{.SecurityOptions}} {{.DriverStatus}} {{.ID}} {{.MemTotal}} {{.NCPU}}'
version -f '{{.Server.APIVersion}} {{.Server.Version}} {{.Server.Os}}'
version -f '{{.Foo}}'
inspect busybox
inspect -f '{{.Id}} {{.RepoTags}} {{json .Config}} {{.Config.Env}}' busybox
inspect -f '{{.ID}} {{.RepoTags}} {{json .Config}} {{.Config.Env}}' busybox
inspect -f '{{.Foo}}' busybox
inspect -f json busybox
inspect -f '{{.GraphDriver}}{{.RootFS}}' busybox
inspect cli-run
inspect cli-run cli-dead nope
inspect -f '{{.State.Status}} {{.State.Running}} {{.Id}}' cli-run cli-dead
inspect -f '{{.Config.Labels}} {{.Config.Labels.a}} {{.Config.Labels.b}} {{index .Config.Labels "zz"}}' cli-run
inspect -f '{{.HostConfig.PidsLimit}}|{{.Config.Entrypoint}}|{{.Config.Cmd}}|{{.NetworkSettings.Ports}}|{{.HostConfig.Binds}}' cli-run
inspect -f '{{.HostConfig.RestartPolicy}}|{{.HostConfig.LogConfig}}|{{.Config.Volumes}}|{{.HostConfig.Ulimits}}|{{.State.Health}}' cli-run
inspect -f '{{range $k,$v := .NetworkSettings.Ports}}{{$k}}={{(index $v 0).HostPort}} {{end}}' cli-run
inspect -f '{{.State.Health.Status}}' cli-dead
inspect -f '{{json .State}}{{json .Config.Labels}}{{json .HostConfig.PortBindings}}' cli-run
inspect -f '{{.SizeRw}}' cli-dead
inspect -s -f '{{.SizeRw}}' cli-dead
inspect -f '{{.Nope' cli-dead
inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{println}}{{end}}' cli-run
top cli-run
top cli-run -o pid,cmd
diff cli-run
port cli-run
port cli-run 80
port cli-run 80/tcp
port cli-run 81/tcp
port cli-run foo
port cli-dead
logs cli-dead
logs -t cli-dead
logs --tail 1 cli-dead
logs -n 0 cli-dead
logs -f cli-dead
logs --details cli-dead
logs --since 1h --until 0s cli-dead
logs --since zz cli-dead
wait cli-dead cli-dead
attach cli-dead
exec cli-dead true
exec cli-run sh -c 'exit 7'
exec cli-run nope
exec -e A=b -w /tmp -u 1:1 cli-run sh -c 'echo $A $PWD; id'
exec -d cli-run true
exec -it cli-run sh
pause cli-dead
kill cli-dead
kill -s FOO cli-run
rm cli-run
rename cli-run cli-dead
rename cli-run ''
start cli-run
stop cli-dead
events --since 1 --until 2
events --since 10m --until 0s --filter container=cli-dead
events --since 10m --until 0s --filter container=cli-dead --format '{{.Status}} {{.Action}} {{.Type}} {{.Actor.Attributes.name}}'
events --since 10m --until 0s --filter container=cli-dead --format json
container prune -f --filter label=nope
image prune -f --filter label=nope
volume prune -f --filter label=nope
network prune -f --filter label=nope
container prune
image prune -a
volume prune
network prune
system prune
save nope
run --rm busybox sh -c 'echo o; exit 3'
run --rm busybox sh -c 'kill -9 $$'
run --rm -i busybox cat
run --rm -u 1000:1000 -e A=1 -w /tmp --hostname hh --read-only --tmpfs /t busybox sh -c 'id; pwd; hostname; echo $A; touch /x'
run --rm --name cli-run busybox true
run busybox nope
run busybox /etc
create --name cli-run busybox
`;

/** Sent to a recording server: the requests must be the same. */
export const requests = `
create busybox
create --name n -it -h host --domainname dom -u 1:2 -w /w -e A=b -e FOO -e NOPE --env-file ef -l a=b -l c --label-file lf busybox sh -c 'x y'
create -a stdout -a stderr busybox
create -a stdin -i busybox
create -i busybox
create --entrypoint /x busybox a
create --entrypoint= busybox a
create -m 10m --memory-swap -1 --memory-reservation 5M --cpus 1.5 --cpu-shares 5 --cpu-period 1000 --cpu-quota 2000 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit 10 --oom-kill-disable --oom-score-adj 5 --memory-swappiness 5 --blkio-weight 100 busybox
create --memory-swap 1g --shm-size 1.5g --ulimit nofile=1:2 --ulimit nproc=5 --ulimit nofile=3 busybox
create --read-only --init --privileged --cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --security-opt seccomp=unconfined --group-add x --sysctl net.a=1 busybox
create --cap-add net_admin --cap-add CAP_CHOWN --cap-drop chown --cap-drop KILL busybox
create --security-opt seccomp=sec.json --security-opt systempaths=unconfined --security-opt label=a:b:c busybox
create --init=false --oom-kill-disable=false busybox
create --device /dev/null --device /dev/zero:/dev/x:r --device /dev/full:rw busybox
create --gpus all busybox
create --gpus device=a busybox
create -p 80 -p 8080:80 -p 127.0.0.1:9:9/udp -p 1000-1002:2000-2002 -p 5000-5010:5000 -p [::1]:1:1 --expose 99 --expose 100-101/udp -P busybox
create -p target=80,published=8080,protocol=udp busybox
create -p :80 -p 1.1.1.1::81 -p 80-81:82 -p 0:1 busybox
create -v /a -v ./rel:/d --tmpfs /t --tmpfs /u:size=1m,mode=1 --volumes-from x --volume-driver d busybox
create -v /e:/e:rw,z busybox
create --mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave --mount type=volume,source=v,target=/c,volume-nocopy,volume-label=a=b,volume-driver=x,volume-opt=k=v --mount type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1777 --mount src=q,dst=/e busybox
create --mount type=image,src=a,dst=/b,image-subpath=x --mount type=bind,src=./x,dst=/y,bind-recursive=disabled busybox
create --dns 1.1.1.1 --dns-search a --dns-opt b --dns-option c --add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway --add-host d:[::2] busybox
create --network n1 --network-alias a1 --ip 1.2.3.4 --ip6 ::1 --link x:y --link-local-ip 169.254.1.1 --mac-address 92:d0:c6:0a:29:33 busybox
create --network name=n1,alias=a,ip=1.2.3.4,driver-opt=k=v,gw-priority=5 --network n2 busybox
create --net host busybox
create --net container:x busybox
create --link x busybox
create --restart always busybox
create --restart on-failure:3 busybox
create --stop-signal TERM --stop-timeout 5 --runtime x --isolation default --log-driver json-file --log-opt a=b --log-opt c busybox
create --health-cmd 'a b' --health-interval 5s --health-timeout 1m --health-retries 3 --health-start-period 1h --health-start-interval 2s busybox
create --no-healthcheck busybox
create --pid host --uts host --ipc host --userns host --cgroupns host --cgroup-parent x --storage-opt size=5 --annotation a=b busybox
create --device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:5 --blkio-weight-device /dev/sda:100 --device-cgroup-rule 'c 1:3 r' busybox
create --rm --platform linux/amd64 busybox
create -c 5 --cpu-rt-period 5 --cpu-rt-runtime 6 busybox
create -e A= -e 'B=x y' -e C=D=E busybox
create -m 4.5gb --memory-reservation 1tib busybox
create localhost:5000/a/b:c -- --flag
create -itd busybox
exec -d -e A=b -w /w -u x --privileged c a -b
restart -t 3 a
kill -s 9 a
rm -fv a
rm -l a/b
pause a
unpause a
rename a b
network create --driver d --subnet 10.0.0.0/24 --gateway 10.0.0.1 --ip-range 10.0.0.128/25 --aux-address h=10.0.0.5 --label a=b -o k=v --internal --attachable --ipv6 n
network connect --alias a --ip 1.2.3.4 --link x:y --driver-opt k=v n c
network disconnect -f n c
volume create --label a=b -o type=tmpfs -d local v
volume rm -f v
update -m 1g --memory-swap 2g --cpus 2 --restart no --pids-limit -1 a
`;

/** Splits a block into command lines, and a line into words as a shell does: quotes group, nothing is expanded. */
export function commandLines(block: string): string[][] {
  return block
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const words = line.match(/(?:'[^']*'|[^\s'])+/g) ?? [];
      return words.map((word) => word.replaceAll("'", ""));
    });
}
