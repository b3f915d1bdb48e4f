#!/bin/sh
# A small shell as an agent: each message is one command, its output is the answer, as it comes.
#
#   ebbgate agent --id shell --exec ./shell.sh
#
# Whoever may talk to this agent runs these commands as you. So only the commands named here
# run, no shell reads the message, and each session works in a folder of its own.
set -euf
allowed=' cat date echo grep head ls mkdir seq sort tail touch uname wc '

folder=${SHELL_AGENT_DIR:-${TMPDIR:-/tmp}/ebbgate-shell}/$EBBGATE_SESSION
umask 077
mkdir -p "$folder"
cd "$folder"

IFS= read -r line || [ -n "$line" ]
case $line in
*[!A-Za-z0-9\ ._,:=+-]*)
    echo "Only letters, digits, spaces and . _ , : = + - are allowed here."
    exit 0 # that is the answer; a failure would be tried again
    ;;
esac
# shellcheck disable=SC2086 # split into words on purpose; globbing is off
set -- $line
case $allowed in
*" ${1:-} "*) exec "$@" ;;
*)
    echo "I know:$allowed"
    ;;
esac
