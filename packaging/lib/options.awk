# Reads `ebbgate COMMAND --help` and writes a line for each option, its parts separated by tabs:
#   --name  -letter or -  name of its value or -  o (option) or s (setting)  what it does
# Help texts that go over several lines are put together.
function flush() {
    if (name != "") {
        gsub(/ +/, " ", text)
        sub(/^ /, "", text)
        print name "\t" letter "\t" arg "\t" kind "\t" text
    }
    name = ""
}
BEGIN { kind = "o" }
/^Options:/ { in_options = 1; next }
/^Settings, / { flush(); kind = "s" }
in_options && /^  (-.,|   ) --/ {
    flush()
    letter = substr($0, 3, 2) == "  " ? "-" : substr($0, 3, 2)
    rest = substr($0, 7)
    match(rest, /^--[a-z0-9-]+( [^ ]+)?/)
    split(substr(rest, 1, RLENGTH), word, " ")
    arg = word[2] == "" ? "-" : word[2]
    name = word[1]
    delete word[2]
    text = substr(rest, RLENGTH + 1)
    next
}
in_options && /^          / { text = text " " $0; next }
END { flush() }
