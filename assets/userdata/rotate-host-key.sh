# Replace the host key that came with the user data by one that never left the machine. Safe to repeat at any point.
#
#   next KEY DELIVERED    make the new key beside KEY if KEY still is DELIVERED ("ssh-ed25519 AAAA…"), and print its
#                         public half; if KEY was replaced already, print that one's
#   swap KEY RELOAD…      put the new key in KEY's place and run RELOAD, which makes sshd read it. Connections that are
#                         open stay open: sshd executes itself anew for the next ones
set -eu
umask 077
verb=$1
key=$2
shift 2
case $verb in
next)
    current=$(ssh-keygen -y -f "$key" | cut -d ' ' -f 1,2)
    if [ "$current" = "$1" ]; then
        if ! ssh-keygen -y -f "$key.next" >/dev/null 2>&1; then
            rm -f "$key.next" "$key.next.pub"
            ssh-keygen -q -t ed25519 -N '' -C '' -f "$key.next"
        fi
        current=$(ssh-keygen -y -f "$key.next" | cut -d ' ' -f 1,2)
    fi
    echo "$current"
    ;;
swap)
    if [ -f "$key.next" ]; then
        mv -f "$key.next" "$key"
        rm -f "$key.next.pub"
    fi
    # sshd leaves out a key whose public half does not fit.
    ssh-keygen -y -f "$key" >"$key.pub.next"
    chmod 644 "$key.pub.next"
    mv -f "$key.pub.next" "$key.pub"
    # Files that were renamed keep the label of where they were made.
    if command -v restorecon >/dev/null 2>&1; then restorecon "$key" "$key.pub"; fi
    "$@"
    ;;
*)
    echo "rotate-host-key: next or swap, not $verb" >&2
    exit 2
    ;;
esac
