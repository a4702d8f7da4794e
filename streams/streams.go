// Package streams declares the two streams and their durable consumers. The
// declarations are the JSON files beside this one, in the form that
// `nats stream add --config` and `nats consumer add --config` read:
//
//	WEBHOOKS.stream.json, KV_crm.stream.json      the streams
//	<stream>.<durable>.consumer.json              the durables
//
// They are embedded in the programs, which create what is missing at start and
// leave alone what exists: a stream that differs is reported, with the command
// that would align it.
package streams

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
)

//go:embed *.json
var files embed.FS

// A Stream is one declared stream and its durables.
type Stream struct {
	Config    jetstream.StreamConfig
	Consumers []jetstream.ConsumerConfig
}

// Declared gives the streams as the files declare them, with the given number of
// replicas (1 or 3; 0 keeps the files'). Order: a stream before those that follow it.
func Declared(replicas int) ([]Stream, error) {
	var out []Stream
	for _, name := range []string{contracts.StreamWebhooks, contracts.StreamCRM} {
		var s Stream
		if err := decode(name+".stream.json", &s.Config); err != nil {
			return nil, err
		}
		if replicas != 0 {
			s.Config.Replicas = replicas
		}
		matches, err := files.ReadDir(".")
		if err != nil {
			return nil, fmt.Errorf("listing the declarations: %w", err)
		}
		for _, f := range matches {
			if ok, _ := path.Match(name+".*.consumer.json", f.Name()); !ok {
				continue
			}
			var c jetstream.ConsumerConfig
			if err := decode(f.Name(), &c); err != nil {
				return nil, err
			}
			s.Consumers = append(s.Consumers, c)
		}
		out = append(out, s)
	}
	return out, nil
}

// decode refuses what it does not know: the nats CLI takes "duplicate_windw"
// without a word and leaves the two minutes of the default.
func decode(file string, into any) error {
	data, err := files.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return nil
}

// A Drift is something that exists and is not as declared.
type Drift struct {
	Name    string   // "WEBHOOKS", or "WEBHOOKS > billing"
	Fields  []string // the JSON fields that differ
	Missing bool     // it does not exist at all
	Command string   // the nats command that aligns it, run from the project's root
}

func (d Drift) String() string {
	if d.Missing {
		return d.Name + " does not exist; to create it: " + d.Command
	}
	return fmt.Sprintf("%s differs in %s; to align it: %s", d.Name, strings.Join(d.Fields, ", "), d.Command)
}

// Apply creates the streams and durables that are missing, except the durables
// named in without, and reports what differs. It changes nothing that exists.
func Apply(ctx context.Context, js jetstream.JetStream, replicas int, without ...string) ([]Drift, error) {
	return walk(ctx, js, replicas, true, without)
}

// CreateWebhooks creates the stream of webhooks where it is missing, and nothing else:
// it is what the edge may do, so that it can start first.
func CreateWebhooks(ctx context.Context, js jetstream.JetStream, replicas int) error {
	_, err := webhooks(ctx, js, replicas, true)
	return err
}

// DiffWebhooks is Diff for the stream of webhooks alone, without its durables: all that
// the edge may look at.
func DiffWebhooks(ctx context.Context, js jetstream.JetStream, replicas int) ([]Drift, error) {
	d, err := webhooks(ctx, js, replicas, false)
	if err != nil || d == nil {
		return nil, err
	}
	return []Drift{*d}, nil
}

func webhooks(ctx context.Context, js jetstream.JetStream, replicas int, create bool) (*Drift, error) {
	declared, err := Declared(replicas)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(declared, func(s Stream) bool { return s.Config.Name == contracts.StreamWebhooks })
	return stream(ctx, js, declared[i].Config, create)
}

// Diff reports what is missing or differs, and creates nothing.
func Diff(ctx context.Context, js jetstream.JetStream, replicas int, without ...string) ([]Drift, error) {
	return walk(ctx, js, replicas, false, without)
}

func walk(ctx context.Context, js jetstream.JetStream, replicas int, create bool, without []string) ([]Drift, error) {
	declared, err := Declared(replicas)
	if err != nil {
		return nil, err
	}
	var drifts []Drift
	for _, s := range declared {
		d, err := stream(ctx, js, s.Config, create)
		if err != nil {
			return nil, err
		}
		if d != nil {
			drifts = append(drifts, *d)
		}
		for _, c := range s.Consumers {
			if slices.Contains(without, c.Durable) {
				continue
			}
			d, err := consumer(ctx, js, s.Config.Name, c, create)
			if err != nil {
				return nil, err
			}
			if d != nil {
				drifts = append(drifts, *d)
			}
		}
	}
	return drifts, nil
}

func stream(ctx context.Context, js jetstream.JetStream, c jetstream.StreamConfig, create bool) (*Drift, error) {
	file := c.Name + " --config streams/" + c.Name + ".stream.json"
	if c.Replicas > 1 {
		file += fmt.Sprintf(" --replicas=%d", c.Replicas)
	}
	existing, err := js.Stream(ctx, c.Name)
	switch {
	case err == nil:
		if fields := differing(c, existing.CachedInfo().Config); fields != nil {
			return &Drift{Name: c.Name, Fields: fields, Command: "nats stream edit " + file}, nil
		}
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("looking for stream %s: %w", c.Name, err)
	case !create:
		return &Drift{Name: c.Name, Missing: true, Command: "nats stream add " + file}, nil
	default:
		// Another process may be doing the same; the same declaration twice is no error.
		if _, err := js.CreateStream(ctx, c); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, fmt.Errorf("creating stream %s: %w", c.Name, err)
		}
	}
	return nil, nil
}

func consumer(ctx context.Context, js jetstream.JetStream, stream string, c jetstream.ConsumerConfig, create bool) (*Drift, error) {
	name := stream + " > " + c.Durable
	file := fmt.Sprintf("%s %s --config streams/%s.%s.consumer.json", stream, c.Durable, stream, c.Durable)
	existing, err := js.Consumer(ctx, stream, c.Durable)
	switch {
	case err == nil:
		if fields := differing(c, existing.CachedInfo().Config); fields != nil {
			return &Drift{Name: name, Fields: fields, Command: "nats consumer edit " + file}, nil
		}
	case !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("looking for consumer %s: %w", name, err)
	case !create:
		return &Drift{Name: name, Missing: true, Command: "nats consumer add " + file}, nil
	default:
		if _, err := js.CreateConsumer(ctx, stream, c); err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
			return nil, fmt.Errorf("creating consumer %s: %w", name, err)
		}
	}
	return nil, nil
}

// differing names the JSON fields in which two configurations differ. What the
// server adds on its own (metadata that begins with "_nats.") does not count.
func differing(want, have any) []string {
	w, h := fields(want), fields(have)
	var out []string
	for k := range w {
		if !reflect.DeepEqual(w[k], h[k]) {
			out = append(out, k)
		}
	}
	for k := range h {
		if _, ok := w[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func fields(config any) map[string]any {
	data, err := json.Marshal(config)
	if err != nil {
		panic(err) // plain data: cannot happen
	}
	m := map[string]any{}
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	if meta, ok := m["metadata"].(map[string]any); ok {
		for k := range meta {
			if strings.HasPrefix(k, "_nats.") {
				delete(meta, k)
			}
		}
		if len(meta) == 0 {
			delete(m, "metadata")
		}
	}
	// Absent and empty mean the same to the server.
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case bool:
			if !v {
				delete(m, k)
			}
		case float64:
			if v == 0 {
				delete(m, k)
			}
		case string:
			if v == "" {
				delete(m, k)
			}
		case map[string]any:
			if len(v) == 0 {
				delete(m, k)
			}
		}
	}
	return m
}
