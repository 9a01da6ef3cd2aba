_limbeck() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }"
    COMPREPLY=($(LIMBECK_COMPLETE="$line" limbeck completion bash 2>/dev/null))
    # Bash takes what stands behind = and : for a word of its own.
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[=:]}"}"}")
    [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace
}
complete -o default -o bashdefault -F _limbeck limbeck
