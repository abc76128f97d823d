// Reads Calico's NetworkPolicies, a JSON object a line, and says of each what Calico itself finds wrong, or nothing.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	validator "github.com/projectcalico/calico/libcalico-go/lib/validator/v3"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var policy v3.NetworkPolicy
		known := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		known.DisallowUnknownFields()
		err := known.Decode(&policy)
		if err == nil {
			err = validator.Validate(&policy)
		}
		if err != nil {
			fmt.Printf("%s/%s: %q\n", policy.Namespace, policy.Name, err)
		} else {
			fmt.Println()
		}
	}
}
