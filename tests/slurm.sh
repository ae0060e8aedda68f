#!/usr/bin/env bash
# tests/slurm.sh start|stop      a Slurm of one node on this machine, for tests: munge, slurmctld, slurmd; no accounting.
#
# Needs root and Debian's slurm-wlm and munge. The node says that it has 4 CPUs, 16 GB and a GPU, whatever there is: nothing
# is bound to them. The configuration must lie at its default place, since Snakemake's plugin clears SLURM_CONF inside a
# job; one that is there already is left alone (status 3). `stop` ends what `start` started and removes what it made.
set -euo pipefail

config=/etc/slurm
state=/run/companion-slurm # processes' numbers, logs and the notes of what was made
host="$(hostname -s)"

configure() {
    cat >"$config/slurm.conf" <<EOF
ClusterName=companion
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
KillWait=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=16384 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
PartitionName=other Nodes=$host MaxTime=INFINITE State=UP
EOF
    echo "NodeName=$host Name=gpu File=/dev/null" >"$config/gres.conf"
}

start() {
    [ "$(id -u)" = 0 ] || { echo "tests/slurm.sh: needs root" >&2; exit 3; }
    for name in munged slurmctld slurmd sbatch; do
        command -v "$name" >/dev/null || { echo "tests/slurm.sh: needs $name (Debian: slurm-wlm, munge)" >&2; exit 3; }
    done
    [ ! -d "$state" ] || stop # what a killed test left
    if [ -e "$config/slurm.conf" ] || [ -e "$config/gres.conf" ]; then
        echo "tests/slurm.sh: $config holds a configuration of this machine's own" >&2
        exit 3
    fi
    mkdir -p "$state/ctld" "$state/d" "$config"
    munge -n 2>/dev/null | unmunge >/dev/null 2>&1 || start_munge
    configure
    slurmctld
    slurmd
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --partition all --format %t 2>/dev/null)" = idle ]; then return; fi
        sleep 0.1
    done
    echo "tests/slurm.sh: the node has not come up" >&2
    tail -n 20 "$state"/*.log >&2
    stop
    exit 1
}

start_munge() {
    if [ ! -e /etc/munge/munge.key ]; then
        (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
        chown munge: /etc/munge/munge.key
        touch "$state/made-key"
    fi
    [ -d /run/munge ] || touch "$state/made-run"
    install -d -o munge -g munge -m 0755 /run/munge "$state/munge"
    setpriv --reuid munge --regid munge --clear-groups \
        munged --pid-file="$state/munge/munged.pid" --log-file="$state/munge/munged.log"
}

end() { # the processes whose numbers these files hold, those that are still there; and wait for them
    local number numbers
    numbers="$(cat "$@" 2>/dev/null || true)"
    for number in $numbers; do kill "$number" 2>/dev/null || true; done
    for number in $numbers; do
        for _ in $(seq 100); do
            kill -0 "$number" 2>/dev/null || continue 2
            sleep 0.1
        done
        kill -KILL "$number" 2>/dev/null || true
    done
}

stop() {
    [ -d "$state" ] || return 0
    if [ -e "$state/slurmctld.pid" ]; then
        timeout 10 scancel --user root 2>/dev/null || true
        for _ in $(seq 100); do
            [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
            sleep 0.1
        done
    fi
    end "$state/slurmd.pid" "$state/slurmctld.pid" "$state/munge/munged.pid"
    [ ! -e "$state/made-key" ] || rm -f /etc/munge/munge.key
    [ ! -e "$state/made-run" ] || rm -rf /run/munge
    rm -f "$config/slurm.conf" "$config/gres.conf"
    rm -rf "$state"
}

case "${1:-}" in
    start | stop) "$1" ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
