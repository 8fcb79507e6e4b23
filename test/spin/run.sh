#!/usr/bin/env bash
#
# Checks the model of the channel's protocol (channel.pml) with spin, in
# several small worlds; then leaves out one thing of the protocol after the
# other, and spin must find fault with each: else the model proves nothing.
#
#   bash test/spin/run.sh
#
# Needs spin and a C compiler (CC, by default cc).
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "${BASH_SOURCE[0]}")"

good=0
bad=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

main()
{
	if ! command -v spin >/dev/null; then
		echo "spin is not installed (on Debian: apt-get install spin)"
		echo "spin: 0 passed, 1 failed"
		return 1
	fi

	# two of each, a slot for each and for both, on either kind of server
	holds 'capacity 1, server up to 16' -DFORWARD=1 -DBUSY=2
	holds 'capacity 1, server from 17' -DBUSY=2
	holds 'capacity 2, batches' -DCAPACITY=2 -DBATCH=2 -DMESSAGES=2 -DBUSY=1
	holds 'an early leaver' -DLEAVES=1 -DBUSY=1
	holds 'a sender closes' -DCLOSES=1 -DBUSY=1 -DCAPACITY=2
	holds 'two senders close' -DCLOSES=2 -DMESSAGES=2 -DRECEIVERS=1
	holds 'waits that end by their time' -DTIMEOUTS=1 -DBUSY=1
	holds 'a cancel, server up to 16' -DFORWARD=1 -DCANCELS=1
	holds 'a cancel, server from 17' -DCANCELS=1 -DBUSY=2
	holds 'a death, server up to 16' -DFORWARD=1 -DDEATHS=1
	holds 'two deaths, server from 17' -DDEATHS=2
	holds 'a death, others stay busy' -DDEATHS=1 -DBUSY=2 -DSENDERS=1 -DMESSAGES=2

	# one against many
	holds 'three receivers, shares of a batch' -DSENDERS=1 -DRECEIVERS=3 -DCAPACITY=2 -DBATCH=2 -DMESSAGES=2 -DBUSY=2
	holds 'three senders, room for two' -DSENDERS=3 -DRECEIVERS=1 -DCAPACITY=2 -DBUSY=1
	holds 'one sender, everything once' -DSENDERS=1 -DMESSAGES=2 -DCANCELS=1 -DDEATHS=1 -DTIMEOUTS=1 -DBUSY=1
	holds 'one receiver, everything once' -DRECEIVERS=1 -DCANCELS=1 -DDEATHS=1 -DTIMEOUTS=1 -DBUSY=1
	holds 'three messages each, in order' -DMESSAGES=3 -DCAPACITY=2 -DBATCH=2 -DRECEIVERS=1

	breaks 'the end of a side wakes nobody' -DBREAK_LEAVE_WAKES
	breaks 'closing wakes nobody' -DBREAK_CLOSE_WAKES -DCLOSES=1 -DBUSY=1
	breaks 'a closed channel takes messages' -DBREAK_CLOSED_REFUSES -DCLOSES=1
	breaks 'no look between the list and the sleep' -DBREAK_LOOK_AGAIN
	breaks 'a cancel swallows a wake-up' -DBREAK_CANCEL_PASSES_ON -DCANCELS=1 -DBUSY=2
	breaks 'a death swallows a wake-up' -DBREAK_DEATH_PASSES_ON -DDEATHS=1
	breaks 'the dead leave the list last' -DBREAK_DEATH_LEAVES_LIST_LATE -DDEATHS=1 -DMESSAGES=2 -DSENDERS=1
	breaks 'the list is left after the lock' -DBREAK_LIST_LEFT_UNLOCKED -DBUSY=2 -DMESSAGES=2 -DSENDERS=1
	breaks 'a batch wakes one receiver only' -DBREAK_BATCH_WAKES -DBATCH=2 -DMESSAGES=2 -DCAPACITY=2 -DBUSY=2 -DSENDERS=1
	breaks 'receivers take no lock' -DBREAK_LOCK

	echo "spin: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# holds NAME SWITCHES...: the whole world is searched, and nothing is wrong.
holds()
{
	local name=$1
	shift

	if search "$@" && [ "$errors" = 0 ] && [ "$whole" = yes ]; then
		good=$((good + 1))
		echo "ok      $name: $states states"
	else
		bad=$((bad + 1))
		echo "FAILED  $name ($*)"
		sed 's/^/        /' "$work/log"
		trail "$@"
	fi
}

# breaks NAME SWITCHES...: a fault is found, and it is the model's.
breaks()
{
	local name=$1
	shift

	if search "$@" && [ "$errors" = 1 ] && grep -qE '^pan:1: (assertion violated|non-progress cycle)' "$work/log"; then
		good=$((good + 1))
		echo "ok      found: $name"
	else
		bad=$((bad + 1))
		echo "FAILED  not found: $name ($*)"
		sed 's/^/        /' "$work/log"
	fi
}

# search SWITCHES...: sets errors, states and whole; what was said is in log.
search()
{
	errors= states= whole=no
	rm -f "$work"/pan* "$work"/*.trail
	cp channel.pml "$work"
	(
		cd "$work"
		spin -a "$@" channel.pml && "${CC:-cc}" -w -O0 -DNP -DMEMLIM=2000 -o pan pan.c && ./pan -l -n -m100000
	) >"$work/log" 2>&1 || return
	errors=$(sed -nE 's/.*errors: ([0-9]+)$/\1/p' "$work/log")
	states=$(sed -nE 's/^ *([0-9.e+]+) states, stored.*/\1/p' "$work/log")
	grep -qE 'max search depth too small|search not completed|out of memory|memory limit' "$work/log" || whole=yes
}

# trail SWITCHES...: how spin came to it.
trail()
{
	if [ -f "$work/channel.pml.trail" ]; then
		(cd "$work" && spin -t -p -g "$@" channel.pml 2>&1 | tail -n 60 | sed 's/^/        /')
	fi
}

main
