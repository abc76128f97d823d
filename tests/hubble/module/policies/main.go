// Reads CiliumNetworkPolicies, a JSON object a line, and says of each what Cilium's own parser finds wrong, or nothing.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	v2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var policy v2.CiliumNetworkPolicy
		known := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		known.DisallowUnknownFields()
		err := known.Decode(&policy)
		if err == nil {
			_, err = policy.Parse(slog.New(slog.DiscardHandler), "default")
		}
		if err != nil {
			fmt.Printf("%s/%s: %q\n", policy.Namespace, policy.Name, err)
		} else {
			fmt.Println()
		}
	}
}
