package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
)

// DiffWebhooks is Diff for the WEBHOOKS stream alone, without its durables: all that the
// edge may look at.
func DiffWebhooks(ctx context.Context, js jetstream.JetStream, replicas int) ([]Drift, error) {
	declared, err := Declared(replicas)
	if err != nil {
		return nil, err
	}
	want := declared[0].Config
	command := "nats stream edit " + contracts.StreamWebhooks + " --config streams/" + contracts.StreamWebhooks + ".stream.json"
	have, err := js.Stream(ctx, contracts.StreamWebhooks)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return []Drift{{Name: want.Name, Missing: true, Command: "nats stream add " + want.Name}}, nil
	case err != nil:
		return nil, fmt.Errorf("looking for stream %s: %w", want.Name, err)
	}
	if fields := differing(want, have.CachedInfo().Config); fields != nil {
		return []Drift{{Name: want.Name, Fields: fields, Command: command}}, nil
	}
	return nil, nil
}
