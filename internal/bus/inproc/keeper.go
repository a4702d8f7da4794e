package inproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// lookEvery is how often the disk is looked at: a busy edge stores 3 MB meanwhile.
	lookEvery = 200 * time.Millisecond
	// restartPause is between two tries to start a server whose store was at fault.
	restartPause = 2 * time.Second
	// The reserve is a twentieth of the disk, within these bounds.
	leastReserve, mostReserve = 4 << 20, 256 << 20
)

// Why no webhook should be stored now.
var (
	// ErrNearlyFull: what is left of the disk is for the state, and for the server itself.
	ErrNearlyFull = errors.New("the disk of NATS_STORE_DIR is nearly full: make room, and webhooks are taken again by themselves")
	// ErrStoreAtFault: the server could not write, and is started anew once there is room.
	ErrStoreAtFault = errors.New("the NATS server could not write to NATS_STORE_DIR, and is started anew as soon as there is room")
)

// Reserve is how many bytes of a disk of some size no webhook is stored in.
func Reserve(total uint64) uint64 { return min(mostReserve, max(leastReserve, total/20)) }

// NearlyFull says whether less than the reserve is free on the disk of a directory.
func NearlyFull(dir string) bool {
	free, total, err := diskSpace(dir)
	return err == nil && free < Reserve(total)
}

// A keeper is what a server knows of its disk.
type keeper struct {
	disk  func() (free, total uint64, err error)
	fault atomic.Bool           // the server said that it could not write
	full  atomic.Pointer[error] // what Full says; nil: nil

	free, reserve prometheus.Gauge
	restarts      prometheus.Counter
}

func (k *keeper) init(dir string) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	k.disk = func() (free, total uint64, err error) { return diskSpace(dir) }
	k.free = gauge("store_free_bytes", "What is free of the in-process server's disk.")
	k.reserve = gauge("store_reserve_bytes", "Below this much free, webhooks are refused.")
	k.restarts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "store_restarts_total", Help: "Times that the in-process server was started anew since it could not write."})
}

// Full is nil while webhooks can be stored; else ErrNearlyFull or ErrStoreAtFault. It costs
// nothing, and is right as long as Keep runs.
func (s *Server) Full() error {
	if err := s.keep.full.Load(); err != nil {
		return *err
	}
	return nil
}

// Keep watches the server's disk until ctx ends, and mends what a full disk does: from the
// first write that fails nats-server stores nothing any more, whatever room there is
// later. So Full says so before that happens, and a server that was hit all the same is
// started anew on its store, as after a crash. Clients connect again by themselves. reg
// may be nil.
func (s *Server) Keep(ctx context.Context, log *slog.Logger, reg prometheus.Registerer) {
	if reg != nil {
		reg.MustRegister(s.keep.free, s.keep.reserve, s.keep.restarts)
	}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var next time.Time // of a restart
	for {
		err := s.look()
		s.tell(err, log)
		if errors.Is(err, ErrStoreAtFault) && s.roomy() && time.Now().After(next) {
			if rerr := s.restart(ctx); rerr != nil {
				log.Error("the NATS server could not be started anew", "reason", rerr.Error(), "next_try_in", restartPause.String())
				next = time.Now().Add(restartPause)
			} else {
				log.Warn("the NATS server was started anew, and stores again")
				s.keep.restarts.Inc()
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look says why no webhook should be stored now.
func (s *Server) look() error {
	if s.keep.fault.Load() || !s.current().JetStreamEnabled() {
		return ErrStoreAtFault
	}
	if !s.roomy() {
		return ErrNearlyFull
	}
	return nil
}

// roomy says whether the reserve is free. It takes a quarter more to take webhooks again
// than to refuse them, or the two would alternate. Where nobody can tell, there is room.
func (s *Server) roomy() bool {
	free, total, err := s.keep.disk()
	if err != nil {
		return true
	}
	reserve := Reserve(total)
	s.keep.free.Set(float64(free))
	s.keep.reserve.Set(float64(reserve))
	if s.Full() != nil {
		reserve += reserve / 4
	}
	return free >= reserve
}

// tell makes err what Full says, and logs that it has changed.
func (s *Server) tell(err error, log *slog.Logger) {
	before := s.Full()
	if err == before {
		return
	}
	if err == nil {
		s.keep.full.Store(nil)
		log.Info("there is room, webhooks are taken")
		return
	}
	s.keep.full.Store(&err)
	free, total, derr := s.keep.disk()
	attrs := []any{"reason", err.Error(), "dir", s.opts.StoreDir}
	if derr == nil {
		attrs = append(attrs, "free_bytes", free, "reserve_bytes", Reserve(total))
	}
	log.Error("webhooks are refused", attrs...)
}

// restart starts the server anew on its store and at its address.
func (s *Server) restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || ctx.Err() != nil {
		return errors.New("the program ends")
	}
	opts := s.opts.Clone()
	opts.Port = s.port
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
	s.keep.fault.Store(false)
	srv, err := boot(ctx, opts, s.notice)
	if err != nil {
		s.keep.fault.Store(true)
		return err
	}
	s.srv = srv
	return nil
}

// notice is told what the server logs as errors.
func (s *Server) notice(line string) {
	for _, sign := range []string{"write error", "no space left", "will be DISABLED"} {
		if strings.Contains(line, sign) {
			s.keep.fault.Store(true)
		}
	}
}

// errorsOf is a server's logger that passes on errors.
type errorsOf func(line string)

var _ server.Logger = errorsOf(nil)

func (f errorsOf) Errorf(format string, v ...any) { f(fmt.Sprintf(format, v...)) }
func (f errorsOf) Fatalf(format string, v ...any) { f(fmt.Sprintf(format, v...)) }
func (errorsOf) Warnf(string, ...any)             {}
func (errorsOf) Noticef(string, ...any)           {}
func (errorsOf) Debugf(string, ...any)            {}
func (errorsOf) Tracef(string, ...any)            {}
