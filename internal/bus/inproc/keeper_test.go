package inproc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	for total, want := range map[uint64]uint64{
		1 << 20: 4 << 20, 64 << 20: 4 << 20, 1 << 30: 1 << 30 / 20, 10 << 30: 256 << 20, 1 << 40: 256 << 20,
	} {
		if got := Reserve(total); got != want {
			t.Errorf("of a disk of %d bytes %d are kept, not %d", total, got, want)
		}
	}
}

// Webhooks are refused when the reserve is reached, and taken again only when a quarter
// more than that is free.
func TestWhenTheDiskIsNearlyFull(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Options{ConfigFile: "../../../nats.conf", StoreDir: t.TempDir(), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	const total = 1 << 30
	reserve := Reserve(total)
	var free atomic.Uint64
	free.Store(total)
	s.keep.disk = func() (uint64, uint64, error) { return free.Load(), total, nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Keep(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), nil) }()
	defer func() { cancel(); <-ended }()
	for _, step := range []struct {
		free uint64
		want error
	}{
		{reserve, nil}, {reserve - 1, ErrNearlyFull}, {reserve + 1, ErrNearlyFull}, {reserve + reserve/4, nil}, {reserve, nil}, {0, ErrNearlyFull}, {total, nil},
	} {
		free.Store(step.free)
		for deadline := time.Now().Add(20 * time.Second); !errors.Is(s.Full(), step.want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("with %d of %d free: %v, not %v", step.free, reserve, s.Full(), step.want)
			}
		}
		time.Sleep(2 * lookEvery) // and it stays so
		if got := s.Full(); !errors.Is(got, step.want) {
			t.Errorf("with %d of %d free, a little later: %v, not %v", step.free, reserve, got, step.want)
		}
	}
}

// A server that said that it could not write is started anew, once there is room; the
// store and the address stay.
func TestAServerAtFaultIsStartedAnew(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Options{ConfigFile: "../../../nats.conf", StoreDir: t.TempDir(), Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	url, first := s.URL(), s.Server()
	var free atomic.Uint64
	s.keep.disk = func() (uint64, uint64, error) { return free.Load(), 1 << 30, nil }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Keep(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), nil) }()
	defer func() { cancel(); <-ended }()
	s.notice("Filestore [WEBHOOKS] Critical write error: write 1.blk: no space left on device")
	await := func(what string, met func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !met(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	await("the fault is not noticed", func() bool { return errors.Is(s.Full(), ErrStoreAtFault) })
	if s.Server() != first {
		t.Error("started anew on a full disk")
	}
	free.Store(1 << 30)
	await("it stays at fault", func() bool { return s.Full() == nil })
	if s.Server() == first || s.URL() != url || !s.Server().JetStreamEnabled() {
		t.Errorf("new: %v, at %s, was at %s", s.Server() != first, s.URL(), url)
	}
}
