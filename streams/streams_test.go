package streams_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/natstest"
	"leadpipe/streams"
)

func TestDeclarationsSpellOutWhatTheServerKeeps(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	drifts, err := streams.Diff(t.Context(), s.JetStream("operator"), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drifts {
		t.Errorf("right after creation: %s", d)
	}
}

func TestConsumersMayCreateWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.Bare)
	js := s.JetStream("consumers")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	before, err := streams.Diff(ctx, js, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 8 || !before[0].Missing {
		t.Fatalf("on an empty server: %v", before)
	}
	for range 2 { // the second time everything is there
		drifts, err := streams.Apply(ctx, js, 1)
		if err != nil || len(drifts) != 0 {
			t.Fatalf("Apply: %v, %v", drifts, err)
		}
	}
}

func TestDriftIsReportedAndLeftAlone(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	js := s.JetStream("operator")
	stream, err := js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxAge = time.Hour
	cfg.Duplicates = time.Minute
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	c, err := js.Consumer(t.Context(), "KV_crm", "sms")
	if err != nil {
		t.Fatal(err)
	}
	ccfg := c.CachedInfo().Config
	ccfg.AckWait = time.Minute
	if _, err := js.UpdateConsumer(t.Context(), "KV_crm", ccfg); err != nil {
		t.Fatal(err)
	}
	drifts, err := streams.Apply(t.Context(), js, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(drifts) != 2 {
		t.Fatalf("drifts: %v", drifts)
	}
	if got := strings.Join(drifts[0].Fields, " "); got != "duplicate_window max_age" {
		t.Errorf("fields: %s", got)
	}
	if want := "nats stream edit WEBHOOKS --config streams/WEBHOOKS.stream.json"; drifts[0].Command != want {
		t.Errorf("command: %s", drifts[0].Command)
	}
	if want := "nats consumer edit KV_crm sms --config streams/KV_crm.sms.consumer.json"; drifts[1].Command != want {
		t.Errorf("command: %s", drifts[1].Command)
	}
	stream, err = js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	if stream.CachedInfo().Config.MaxAge != time.Hour {
		t.Error("Apply changed a stream that existed")
	}
}

func TestReplicasAreRespected(t *testing.T) {
	t.Parallel()
	declared, err := streams.Declared(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range declared {
		if s.Config.Replicas != 3 {
			t.Errorf("%s: %d replicas", s.Config.Name, s.Config.Replicas)
		}
		if s.Config.Storage != jetstream.FileStorage {
			t.Errorf("%s is not on disk", s.Config.Name)
		}
	}
}
