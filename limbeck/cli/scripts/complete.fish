function __limbeck_complete
    set -lx LIMBECK_COMPLETE (commandline -cp)
    limbeck completion fish 2>/dev/null
end
complete -c limbeck -a '(__limbeck_complete)'
