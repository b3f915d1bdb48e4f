# `ebbgate COMMAND --help` as the first sections of a manual page. Needs -v command=NAME.
function text(s) {
    gsub(/\\/, "\\e", s)
    gsub(/-/, "\\-", s)
    gsub(/"/, "\\(dq", s)
    if (s ~ /^[.']/)
        s = "\\&" s
    gsub(/\. +/, ".\n", s)
    return s
}
function flush() {
    if (name == "")
        return
    line = letter == "" ? ".It Fl Fl " text(name) : ".It Fl " letter " , Fl Fl " text(name)
    if (arg != "")
        line = line " Ar " text(arg)
    gsub(/ +/, " ", help)
    sub(/^ /, "", help)
    print line
    print text(toupper(substr(help, 1, 1)) substr(help, 2)) "."
    name = ""
}
function end_literal() {
    if (literal)
        print ".Ed"
    literal = 0
}
NR == 1 {
    sub(/^Usage: /, "")
    usage = $0
    next
}
NR == 3 {
    summary = $0
    sub(/\.$/, "", summary)
    print ".Sh NAME\n.Nm ebbgate-" command
    print ".Nd " tolower(substr(summary, 1, 1)) substr(summary, 2)
    print ".Sh SYNOPSIS\n.Sy " text(usage)
    print ".Sh DESCRIPTION\n" text($0)
    next
}
/^Options:/ {
    end_literal()
    print ".Sh OPTIONS\n.Bl -tag -width Ds"
    in_options = 1
    next
}
/^Settings, / {
    flush()
    print ".El"
    settings = 1
}
settings {
    next
}
!in_options && /^    / {
    if (!literal)
        print ".Bd -literal -offset indent"
    literal = 1
    print text(substr($0, 5))
    next
}
!in_options && /^$/ {
    end_literal()
    blank = 1
    next
}
!in_options {
    end_literal()
    if (blank && NR > 4)
        print ".Pp"
    blank = 0
    print text($0)
    next
}
/^  (-.,|   ) --/ {
    flush()
    letter = substr($0, 3, 2) == "  " ? "" : substr($0, 4, 1)
    rest = substr($0, 9)
    match(rest, /^[a-z0-9-]+( [^ ]+)?/)
    arg = ""
    n = split(substr(rest, 1, RLENGTH), word, " ")
    name = word[1]
    if (n > 1)
        arg = word[2]
    help = substr(rest, RLENGTH + 1)
    next
}
/^          / {
    help = help " " $0
}
END {
    flush()
    if (settings) {
        print ".Pp\nEvery setting of\n.Xr ebbgate.conf 5\nis an option too, with"
        print ".Li \\-\nfor\n.Li _ :\n.Fl Fl max\\-payload Ar 65536 ."
    } else {
        print ".El"
    }
}
