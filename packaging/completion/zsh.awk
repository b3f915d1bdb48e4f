# zsh: _arguments for each command. Input: commands, then options.
BEGIN { FS = "\t" }
function quoted(s) {
    gsub(/'/, "'\\''", s)
    gsub(/\\/, "\\\\", s)
    gsub(/\[/, "\\[", s)
    gsub(/\]/, "\\]", s)
    gsub(/:/, "\\:", s)
    return s
}
function values(command, name) {
    if (name ~ /^--(config|key|key-file)$/) return "_files"
    if (name == "--data") return "_files -/"
    if (name == "--exec") return "_command_names"
    if (name == "--log-level") return "(error warn info debug)"
    if (name == "--log-format") return "(text json journal auto)"
    if (name == "--mode") return "(exec jsonl)"
    if (name == "--scope") return "(read write agent admin admin\\:read)"
    if (name == "--state" && command == "turns") return "(queued running waiting aborting dead)"
    if (name == "--state") return "(open closed)"
    return ""
}
FNR == NR { about[$1] = $2; order[++n] = $1; next }
{
    value = $4 == "-" ? "" : ":" quoted($4) ":" values($1, $2)
    lines[$1] = lines[$1] " \\\n            '" $2 "[" quoted($6) "]" value "'"
    if ($3 != "-") lines[$1] = lines[$1] " \\\n            '" $3 "[" quoted($6) "]" value "'"
}
END {
    rest["sessions"] = "'1:action:(show close delete abort say fork)' '*:argument:'"
    rest["agents"] = "'1:action:(show add remove)' '*:argument:'"
    rest["connections"] = "'1:action:(close)' '*:argument:'"
    rest["turns"] = "'1:action:(retry)' '*:argument:'"
    rest["backup"] = "'1:file:_files'"
    rest["restore"] = "'1:file:_files'"
    rest["tail"] = rest["export"] = "'1:session:'"
    rest["chat"] = "'*:message:'"
    print "#compdef ebbgate"
    print "_ebbgate() {"
    print "    local -a commands"
    print "    commands=("
    for (i = 1; i <= n; i++) print "        '" order[i] ":" quoted(about[order[i]]) "'"
    print "        'help:Print the help of a command'"
    print "    )"
    print "    if (( CURRENT == 2 )); then"
    print "        _describe -t commands command commands"
    print "        _values option '--help[print the list of commands]' '--version[print the version]'"
    print "        return"
    print "    fi"
    print "    local command=$words[2]"
    print "    shift words"
    print "    (( CURRENT-- ))"
    print "    case $command in"
    for (i = 1; i <= n; i++) {
        c = order[i]
        print "    " c ")"
        print "        _arguments -S " rest[c] lines[c] " ;;"
    }
    print "    help) _describe -t commands command commands ;;"
    print "    esac"
    print "}"
    print "_ebbgate \"$@\""
}
