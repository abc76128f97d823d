#!/bin/busybox sh
# The guest's first process, in its initramfs: goes on to the host's files, read-only below a layer in memory.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
fail() {
	echo "guest: $*"
	poweroff -f
}
for module in /modules/*; do
	insmod "$module" || fail "no $module"
done
mount -t virtiofs -o ro root /lower || fail "no files of the host"
lower=/lower
case $shared in
*over*)  # programs of another machine than the host
	mount -t virtiofs -o ro over /over || fail "no programs"
	lower=/over:/lower
	;;
esac
mount -t tmpfs -o mode=755 layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=$lower,upperdir=/layer/upper,workdir=/layer/work overlay /root || fail "no overlay"
mount -t tmpfs -o mode=755 tmpfs /root/run
cp /bin/busybox /run.sh /root/run
for folder in dev proc sys; do
	mount -o move /$folder /root/$folder
done
exec switch_root /root /run/busybox sh /run/run.sh
fail "no root"
