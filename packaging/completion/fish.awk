# fish: a line for each command and option. Input: commands, then options.
BEGIN { FS = "\t"; print "# fish completion for ebbgate" }
function quoted(s) {
    gsub(/\\/, "\\\\", s)
    gsub(/'/, "\\'", s)
    return "'" s "'"
}
function values(command, name) {
    if (name ~ /^--(config|key|key-file)$/) return " -F"
    if (name == "--data") return " -x -a '(__fish_complete_directories)'"
    if (name == "--exec") return " -x -a '(__fish_complete_command)'"
    if (name == "--log-level") return " -x -a 'error warn info debug'"
    if (name == "--log-format") return " -x -a 'text json journal auto'"
    if (name == "--mode") return " -x -a 'exec jsonl'"
    if (name == "--scope") return " -x -a 'read write agent admin admin:read'"
    if (name == "--state" && command == "turns") return " -x -a 'queued running waiting aborting dead'"
    if (name == "--state") return " -x -a 'open closed'"
    return " -x"
}
function actions(command, list) {
    print "complete -c ebbgate -n '__fish_seen_subcommand_from " command "; and test (count (commandline -opc)) -eq 2' -a '" list "'"
}
FNR == 1 && NR == 1 {
    print "complete -c ebbgate -f"
    print "complete -c ebbgate -n __fish_use_subcommand -l help -s h -d 'print the list of commands'"
    print "complete -c ebbgate -n __fish_use_subcommand -l version -d 'print the version'"
    print "complete -c ebbgate -n __fish_use_subcommand -a help -d 'Print the help of a command'"
}
FNR == NR {
    print "complete -c ebbgate -n __fish_use_subcommand -a " $1 " -d " quoted($2)
    all = all " " $1
    next
}
{
    line = "complete -c ebbgate -n '__fish_seen_subcommand_from " $1 "' -l " substr($2, 3)
    if ($3 != "-") line = line " -s " substr($3, 2)
    if ($4 != "-") line = line values($1, $2)
    print line " -d " quoted($6)
}
END {
    actions("sessions", "show close delete abort say fork")
    actions("agents", "show add remove")
    actions("connections", "close")
    actions("turns", "retry")
    actions("help", substr(all, 2))
    print "complete -c ebbgate -n '__fish_seen_subcommand_from backup restore' -F"
}
