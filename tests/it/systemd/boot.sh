#!/bin/sh
# The first process of the guest: makes a system on its disk, of programs of the machine around it, and becomes its
# systemd. The folder of the test has the programs, and is mounted where nothing can be written to it.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
folder=$1

mount -t proc proc /proc
mkfs.ext4 -q /dev/ubda
mount /dev/ubda "$folder/root"
cd "$folder/root"
mkdir -p dev etc/pam.d etc/security etc/systemd/system home host proc root run sys tmp usr var/lib var/log var/tmp
chmod 1777 tmp var/tmp
chmod 700 root
mount -t devtmpfs dev dev
mount --bind /usr usr
mkdir -p local/bin
mount --bind local usr/local
mount --bind "$folder" host
for link in bin sbin lib lib32 lib64 libx32; do
    [ ! -L "/$link" ] || ln -s "$(readlink "/$link")" "$link"
done

cp -a /etc/alternatives /etc/ld.so.cache /etc/login.defs /etc/shells etc/
: >etc/security/limits.conf
: >etc/security/pam_env.conf
echo 'PLACE=berlin' >etc/environment
echo 0123456789abcdef0123456789abcdef >etc/machine-id
printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files\n' >etc/nsswitch.conf
echo '127.0.0.1 localhost' >etc/hosts
cat >etc/passwd <<END
root:x:0:0::/root:/bin/sh
messagebus:x:100:100::/nonexistent:/usr/sbin/nologin
hf-pi:x:4001:4001::/home/hf-pi:/bin/sh
hf-bomb:x:4002:4002::/home/hf-bomb:/bin/sh
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
END
cat >etc/group <<END
root:x:0:
tty:x:5:
messagebus:x:100:
hf-pi:x:4001:
hf-bomb:x:4002:
nogroup:x:65534:
END
sed 's/:.*/:*:19000:0:99999:7:::/' etc/passwd >etc/shadow
chmod 600 etc/shadow
for name in hf-pi hf-bomb; do
    mkdir "home/$name"
    chown "$name:$name" "home/$name" 2>/dev/null || chown "$(sed -n "s/^$name:x:\([0-9]*\).*/\1/p" etc/passwd)" "home/$name"
done
cat >etc/pam.d/su <<END
auth sufficient pam_rootok.so
account required pam_unix.so
session required pam_env.so readenv=1
session required pam_limits.so
session required pam_unix.so
session optional pam_systemd.so
END
cp etc/pam.d/su etc/pam.d/other

# What a container would not start either, and no one here waits for.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-hwdb-update.service systemd-timesyncd.service \
    systemd-networkd.service systemd-resolved.service ldconfig.service user@.service; do
    ln -s /dev/null "etc/systemd/system/$unit"
done
# Sessions of one account are not to meet the end of the one before.
printf '[Login]\nUserStopDelaySec=0\n' >etc/systemd/logind.conf
cat >etc/systemd/system/check.service <<END
[Unit]
Requires=dbus.socket
After=dbus.socket systemd-logind.service systemd-user-sessions.service
Wants=systemd-logind.service systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/bin/sh /host/check.sh
ExecStopPost=/bin/sh -c 'echo "guest: \$EXIT_STATUS"; echo o >/proc/sysrq-trigger'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
TimeoutStartSec=infinity
END

mkdir old
pivot_root . old
exec chroot . sh -c 'exec /lib/systemd/systemd --unit=check.service --show-status=no --log-target=null' <dev/console >dev/console 2>&1
