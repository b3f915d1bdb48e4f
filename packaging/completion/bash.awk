# bash: one case for the options of each command, one for values. Input: commands, then options.
BEGIN { FS = "\t" }
FNR == NR { commands = commands " " $1; order[++n] = $1; next }
{
    words[$1] = words[$1] " " $2
    if ($3 != "-") words[$1] = words[$1] " " $3
    if ($4 != "-") takes[$1] = takes[$1] "|" $2 ($3 != "-" ? "|" $3 : "")
}
END {
    print "# bash completion for ebbgate"
    print "_ebbgate() {"
    print "    local cur prev words= command= subs="
    print "    COMPREPLY=()"
    print "    cur=${COMP_WORDS[COMP_CWORD]}"
    print "    prev=${COMP_WORDS[COMP_CWORD-1]}"
    print "    [ \"$COMP_CWORD\" -gt 1 ] && command=${COMP_WORDS[1]}"
    print "    if [ -z \"$command\" ]; then"
    print "        COMPREPLY=($(compgen -W '" substr(commands, 2) " help --help --version' -- \"$cur\"))"
    print "        return"
    print "    fi"
    print "    if [ \"$command\" = help ]; then"
    print "        COMPREPLY=($(compgen -W '" substr(commands, 2) "' -- \"$cur\"))"
    print "        return"
    print "    fi"
    print "    case $prev in"
    print "    --config | -c | --key | --key-file) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;"
    print "    --data) COMPREPLY=($(compgen -d -- \"$cur\")); return ;;"
    print "    --exec) COMPREPLY=($(compgen -c -- \"$cur\")); return ;;"
    print "    --log-level) COMPREPLY=($(compgen -W 'error warn info debug' -- \"$cur\")); return ;;"
    print "    --log-format) COMPREPLY=($(compgen -W 'text json journal auto' -- \"$cur\")); return ;;"
    print "    --mode) COMPREPLY=($(compgen -W 'exec jsonl' -- \"$cur\")); return ;;"
    print "    --scope) COMPREPLY=($(compgen -W 'read write agent admin admin:read' -- \"$cur\")); return ;;"
    print "    --state)"
    print "        [ \"$command\" = turns ] && subs='queued running waiting aborting dead' || subs='open closed'"
    print "        COMPREPLY=($(compgen -W \"$subs\" -- \"$cur\")); return ;;"
    print "    esac"
    print "    case $command in"
    for (i = 1; i <= n; i++) {
        c = order[i]
        print "    " c ")"
        print "        words='" substr(words[c], 2) "'"
        if (takes[c] != "") print "        case $prev in " substr(takes[c], 2) ") return ;; esac"
        print "        ;;"
    }
    print "    *) return ;;"
    print "    esac"
    print "    if [[ $cur != -* ]]; then"
    print "        case $command in"
    print "        sessions) [ \"$COMP_CWORD\" -eq 2 ] && words='show close delete abort say fork' ;;"
    print "        agents) [ \"$COMP_CWORD\" -eq 2 ] && words='show add remove' ;;"
    print "        connections) [ \"$COMP_CWORD\" -eq 2 ] && words=close ;;"
    print "        turns) [ \"$COMP_CWORD\" -eq 2 ] && words=retry ;;"
    print "        backup | restore) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;"
    print "        esac"
    print "    fi"
    print "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))"
    print "}"
    print "complete -o filenames -F _ebbgate ebbgate"
}
