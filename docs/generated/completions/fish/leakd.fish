complete -c leakd -l config -d 'The configuration; drop-ins lie in leakd.d beside it [default: /etc/leakd/leakd.toml, if it is there]' -r -F
complete -c leakd -l print-config -d 'Print the configuration in effect, each key with its meaning, and end'
complete -c leakd -s h -l help -d 'Print help'
complete -c leakd -s V -l version -d 'Print version'
