#!/bin/sh
# Certificates, tokens and kubeconfigs of the cluster, in the current folder. Usage: pki.sh NODE...
set -eu
umask 077
SERVER=https://192.168.77.1:6443

certificate() { # name subject usage [names]
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -subj "$2" -out "$1.csr"
	printf 'basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=%s\n' "$3" >"$1.ext"
	[ -z "${4:-}" ] || echo "subjectAltName=$4" >>"$1.ext"
	openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.crt"
}

kubeconfig() { # name credentials
	cat >"$1.kubeconfig" <<-END
		{"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
		 "clusters": [{"name": "e2e", "cluster": {"server": "$SERVER", "certificate-authority-data": "$(base64 -w0 ca.crt)"}}],
		 "users": [{"name": "$1", "user": {$2}}],
		 "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "$1"}}]}
	END
}

by_token() { # name user [group]
	token=$(openssl rand -hex 16)
	echo "$token,$2,$1${3:+,$3}" >>tokens.csv
	kubeconfig "$1" "\"token\": \"$token\""
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -subj /CN=e2e -days 2 \
	-out ca.crt -addext keyUsage=critical,digitalSignature,keyCertSign
certificate apiserver /CN=kube-apiserver serverAuth IP:192.168.77.1,IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc
certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
certificate admin /O=system:masters/CN=admin clientAuth
openssl genrsa -out service-accounts.key 2048
openssl rsa -in service-accounts.key -pubout -out service-accounts.pub

kubeconfig admin "\"client-certificate-data\": \"$(base64 -w0 admin.crt)\", \"client-key-data\": \"$(base64 -w0 admin.key)\""
by_token kube-controller-manager system:kube-controller-manager
by_token kube-scheduler system:kube-scheduler
by_token kube-proxy system:kube-proxy
for node; do by_token "$node" "system:node:$node" system:nodes; done
