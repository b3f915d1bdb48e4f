#!/bin/bash
# Makes the completion for bash, zsh and fish from what the program says about itself:
# make.sh PROGRAM FOLDER
#
# Values are completed where they come from a known set: files, folders, states, log levels.
set -eu
program=$1
to=$2
here=$(dirname "$0")
unset EBBGATE_CONFIG
rm -rf "$to.new"
mkdir -p "$to.new"
"$program" --help | sed -n 's/^  \([a-z][a-z-]*\)  *\(.*\)/\1\t\2/p' >"$to.new/commands"
while IFS=$'\t' read -r command _; do
    "$program" "$command" --help | awk -f "$here/../lib/options.awk" | sed "s/^/$command\t/"
done <"$to.new/commands" >"$to.new/options"
for shell in bash zsh fish; do
    awk -f "$here/$shell.awk" "$to.new/commands" "$to.new/options" >"$to.new/$shell"
done
mv "$to.new/bash" "$to.new/ebbgate.bash"
mv "$to.new/zsh" "$to.new/_ebbgate"
mv "$to.new/fish" "$to.new/ebbgate.fish"
rm -f "$to.new/commands" "$to.new/options"
rm -rf "$to"
mv "$to.new" "$to"
