#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for tests and for trying things out: slurmctld, slurmd and munged of Debian's
# `slurm-wlm` and `munge`, all in one folder, on loopback, on free ports.
#
#   slurm/local_cluster.sh start [DIR]     start what is not running; prints the line that points a shell at it
#   slurm/local_cluster.sh stop [DIR]      end the jobs and the three daemons of DIR, and nothing else
#   slurm/local_cluster.sh restart-controller [DIR]      slurmctld alone, as after a crash: jobs go on
#   slurm/local_cluster.sh kill-node [DIR] | start-node [DIR]      slurmd and what watches its jobs, as in a power cut
#   slurm/local_cluster.sh env [DIR]       the line again:  eval "$(slurm/local_cluster.sh env)"
#
# A SLURM that is already here is not touched: configuration (SLURM_CONF), munge socket, ports and state are DIR's own.
# Works as root in a container without systemd and without write access to cgroups: processes are tracked through /proc.
# CPUS and MEMORY_MB say what the node claims to have, by default what the machine has. There is no accounting.
set -euo pipefail

command=${1:-}
dir=$(realpath -m "${2:-${TMPDIR:-/tmp}/repro-slurm-$(id -u)}")
conf=$dir/slurm.conf
export SLURM_CONF=$conf
PATH=$PATH:/usr/sbin:/sbin

fail() { echo "local_cluster: $*" >&2; exit 1; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

alive() { # NAME: whether the daemon of that pid file runs and is ours
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) && [ -n "$pid" ] && grep -qz -- "$dir" "/proc/$pid/cmdline" 2>/dev/null
}

wait_for() { # SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "$what; see the logs in $dir"
        sleep 0.2
    done
}

configure() {
    for program in slurmctld slurmd munged sbatch; do
        command -v $program >/dev/null || fail "no $program here: apt-get install slurm-wlm munge"
    done
    mkdir -p "$dir"/{state,spool,munge}
    chmod 700 "$dir/munge"
    [ -f "$conf" ] && return
    [ -f "$dir/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    cat >"$dir/cgroup.conf" <<END
CgroupPlugin=cgroup/v1 # which needs nothing as long as no plugin asks for cgroups
CgroupAutomount=no
END
    cat >"$conf.partial" <<END
ClusterName=repro
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5 # a requeued job starts after the expiry; slurmd: see below
DebugFlags=NO_CONF_HASH
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill # memory is enforced, without cgroups
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=50000,batch_sched_delay=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=10
KillWait=5
InactiveLimit=0
MinJobAge=300
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=${CPUS:-$(nproc)} RealMemory=${MEMORY_MB:-$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=1-00:00:00 State=UP PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=1-00:00:00 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=short Nodes=ALL MaxTime=5 State=UP PriorityTier=5 PreemptMode=OFF
END
    mv "$conf.partial" "$conf"
}

start() {
    configure
    if ! alive munged; then
        rm -f "$dir"/munge/socket* # of a crash
        munged --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
            --log-file="$dir/munged.log" --seed-file="$dir/munge/seed" --num-threads=2 --force 2>>"$dir/munged.log"
    fi
    alive slurmctld || slurmctld -f "$conf"
    wait_for 60 "slurmctld does not answer" scontrol ping
    # slurmd on a loaded machine may look at a step's credential after more than 5 seconds, and would refuse it
    sed 's/cred_expire=5 /cred_expire=300 /' "$conf" >"$dir/slurmd.conf"
    alive slurmd || slurmd -f "$dir/slurmd.conf"
    wait_for 60 "the node does not come up" idle
    print_env
}

idle() { sinfo --noheader --format=%T | grep -q -E 'idle|mixed|allocated'; }

end() { # NAME [SIGNAL]
    local pid
    alive "$1" || return 0
    pid=$(cat "$dir/$1.pid")
    kill "-${2:-TERM}" "$pid"
    wait_for 60 "$1 does not end" gone "$pid"
    rm -f "$dir/$1.pid"
}

kill_node() {
    end slurmd KILL
    for process in /proc/[0-9]*; do
        if grep -qz '^slurmstepd: ' "$process/cmdline" 2>/dev/null && ls -l "$process/fd" 2>/dev/null | grep -q -- "$dir/"; then
            kill -KILL "${process#/proc/}" || true
        fi
    done
}

gone() { ! grep -qz -- "$dir" "/proc/$1/cmdline" 2>/dev/null; }

stop() {
    [ -f "$conf" ] || return 0
    if alive slurmctld && scontrol ping >/dev/null 2>&1; then
        scancel --full --signal=KILL --partition=main,low,short --user="$(id -un)" 2>/dev/null || true
        scancel --user="$(id -un)" 2>/dev/null || true
        wait_for 60 "jobs do not end" no_jobs
    fi
    end slurmd
    end slurmctld
    end munged
}

no_jobs() { [ -z "$(squeue --noheader)" ]; }

print_env() { echo "export SLURM_CONF=$conf"; }

case $command in
start) start ;;
stop) stop ;;
restart-controller) end slurmctld KILL && start >/dev/null ;;
kill-node) kill_node ;;
start-node) start >/dev/null ;;
env) print_env ;;
*) fail "start, stop, restart-controller, kill-node, start-node or env, and a folder" ;;
esac
