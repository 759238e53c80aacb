# Run squid in the foreground from the folder $1. Where its helpers are depends on the distribution.
set -eu
dir=$1
PATH=$PATH:/usr/sbin:/usr/local/sbin
for helper in /usr/lib64/squid /usr/lib/squid /usr/libexec/squid /usr/local/libexec; do
    [ ! -x "$helper/basic_ncsa_auth" ] || break
done
sed -e "s|@HELPER@|$helper/basic_ncsa_auth|" -e "s|@DIR@|$dir|" "$dir/squid.conf.in" >"$dir/squid.conf"
exec squid -N -f "$dir/squid.conf"
