// Hubble's own server on standard input: what it answers to requests, and what its messages are. For tests alone.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/container"
	"github.com/cilium/cilium/pkg/hubble/observer"
	"github.com/cilium/cilium/pkg/hubble/observer/namespace"
	"github.com/cilium/cilium/pkg/hubble/observer/observeroption"
	"github.com/cilium/cilium/pkg/hubble/observer/types"
)

// Flows that come ready made.
type decoder struct{}

func (decoder) Decode(event *types.MonitorEvent) (*v1.Event, error) {
	flow := event.Payload.(*flowpb.Flow)
	return &v1.Event{Timestamp: flow.GetTime(), Event: flow}, nil
}

// A client that keeps what it gets.
type client struct {
	grpc.ServerStream
	got [][]byte
}

func (c *client) Context() context.Context { return context.Background() }

func (c *client) Send(response *observerpb.GetFlowsResponse) error {
	data, err := proto.Marshal(response)
	c.got = append(c.got, data)
	return err
}

type answer struct {
	Code      int      `json:"code"`
	Error     string   `json:"error"`
	Responses [][]byte `json:"responses"`
}

// next reads four bytes of length and as many of a message; nil at an empty one.
func next(in io.Reader) []byte {
	var size uint32
	if err := binary.Read(in, binary.BigEndian, &size); err != nil {
		if err == io.EOF {
			os.Exit(0)
		}
		panic(err)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(in, data); err != nil {
		panic(err)
	}
	return data
}

func parsed[M proto.Message](data []byte, message M) M {
	if err := proto.Unmarshal(data, message); err != nil {
		panic(err)
	}
	return message
}

// Flows up to an empty one, which the server keeps; requests up to an empty one, a line of JSON for each; and so on.
func answers() {
	log := slog.New(slog.DiscardHandler)
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		var flows []*flowpb.Flow
		for data := next(in); len(data) > 0; data = next(in) {
			flows = append(flows, parsed(data, &flowpb.Flow{}))
		}
		server, err := observer.NewLocalServer(decoder{}, namespace.NewManager(), log, observeroption.WithMaxFlows(container.Capacity4095))
		if err != nil {
			panic(err)
		}
		go server.Start()
		for _, flow := range flows {
			server.GetEventsChannel() <- &types.MonitorEvent{Payload: flow}
		}
		close(server.GetEventsChannel())
		<-server.GetStopped()
		for data := next(in); len(data) > 0; data = next(in) {
			to := &client{}
			err := server.GetFlows(parsed(data, &observerpb.GetFlowsRequest{}), to)
			said := answer{Responses: to.got, Code: int(status.Code(err))}
			if err != nil {
				said.Error = err.Error()
			}
			if err := json.NewEncoder(out).Encode(said); err != nil {
				panic(err)
			}
		}
		out.Flush()
	}
}

// What Hubble's messages are, as a FileDescriptorSet.
func descriptors() {
	set := &descriptorpb.FileDescriptorSet{}
	for _, file := range []protoreflect.FileDescriptor{
		flowpb.File_flow_flow_proto, relaypb.File_relay_relay_proto, observerpb.File_observer_observer_proto, peerpb.File_peer_peer_proto,
	} {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	data, err := proto.Marshal(set)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(data)
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "descriptors" {
		descriptors()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "metrics" {
		counted(os.Args[2:])
		return
	}
	answers()
}
