#compdef limbeck
_limbeck() {
    local -a found
    found=(${(f)"$(LIMBECK_COMPLETE="${(j: :)words[1,CURRENT]}" limbeck completion zsh 2>/dev/null)"})
    (( ${#found} )) || { _files; return }
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _limbeck limbeck
