#!/bin/sh
# One node: containerd, kubelet and kube-proxy, in mount and network namespaces of its own that it was started in.
# Usage: node.sh NAME ADDRESS POD_RANGE BINARIES FOLDER   (FOLDER holds kubeconfigs and images, and takes logs and state)
set -eu
NAME=$1 ADDRESS=$2 POD_RANGE=$3 BINARIES=$4 FOLDER=$5
STATE=$FOLDER/$NAME
CGROUP=/gadget-e2e/$NAME

mount --make-rshared / # volumes are mounted into pods while they run
mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/lib/gadget /var/log/pods /var/log/containers
mount -t tmpfs -o mode=755 tmpfs /run
for place in /var/lib/kubelet /var/lib/containerd /var/lib/gadget /var/log/pods /var/log/containers; do
	mkdir -p "$STATE$place"
	mount --bind "$STATE$place" $place
done
mount -t tmpfs tmpfs /var/lib/cni
mkdir -p /run/node/sysctl /run/netns

# kubelet sets these for the whole machine unless they are as it wants them: show them to it as if they were
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	path=${setting%=*}
	shown=/run/node/sysctl/$(echo "$path" | tr / _)
	echo "${setting#*=}" >"$shown"
	mount --bind "$shown" "/proc/sys/$path"
done

mkdir /run/node/cni
cat >/run/node/cni/10-pods.conflist <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_RANGE"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
cat >/run/node/containerd.toml <<END
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:e2e"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  cni = {bin_dir = "/usr/lib/cni", conf_dir = "/run/node/cni"}
END
cat >/run/node/kubelet.json <<END
{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
 "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": "$FOLDER/ca.crt"}},
 "authorization": {"mode": "Webhook"},
 "cgroupDriver": "cgroupfs", "cgroupRoot": "$CGROUP", "failCgroupV1": false, "oomScoreAdj": 0, "failSwapOn": false,
 "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "resolvConf": "",
 "evictionHard": {"memory.available": "50Mi"}, "imageGCHighThresholdPercent": 100, "nodeStatusUpdateFrequency": "4s"}
END
cat >/run/node/kube-proxy.json <<END
{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
 "clusterCIDR": "10.244.0.0/16", "clientConnection": {"kubeconfig": "$FOLDER/kube-proxy.kubeconfig"},
 "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}}
END

# kubelet wants its root to exist in every hierarchy, usable
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
	[ -e "$hierarchy/cgroup.procs" ] || continue
	mkdir -p "$hierarchy$CGROUP"
	for group in /gadget-e2e "$CGROUP"; do
		above=$hierarchy${group%/*}
		if [ -e "$above/cgroup.controllers" ]; then # version 2
			for controller in $(cat "$above/cgroup.controllers"); do
				echo "+$controller" >"$above/cgroup.subtree_control" || true
			done
		fi
		if [ -e "$above/cpuset.cpus" ] && [ ! -e "$above/cgroup.controllers" ]; then
			for file in cpuset.cpus cpuset.mems; do cat "$above/$file" >"$hierarchy$group/$file"; done
		fi
	done
done

start() { # name command...
	log=$FOLDER/logs/$NAME-$1.log
	shift
	"$@" >"$log" 2>&1 </dev/null &
}
start containerd containerd --config /run/node/containerd.toml
echo $! >"$FOLDER/$NAME.pid"
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$FOLDER"/images/*.tar; do ctr --namespace k8s.io images import "$image" >/dev/null; done
start kube-proxy "$BINARIES/kube-proxy" --config=/run/node/kube-proxy.json --hostname-override="$NAME"
start kubelet "$BINARIES/kubelet" --config=/run/node/kubelet.json --kubeconfig="$FOLDER/$NAME.kubeconfig" \
	--hostname-override="$NAME" --node-ip="$ADDRESS"
