package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// A program is a consumer that can be stopped and started again.
type program struct {
	mu     sync.Mutex
	name   string
	run    func(context.Context) error
	cancel context.CancelFunc // nil: it does not run
	ended  chan error
}

// start runs the program until stop. It tells failed of an end by itself.
func (p *program) start(failed chan<- error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p.cancel, p.ended = cancel, ended
	go func() {
		err := p.run(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", p.name, err)
			select {
			case failed <- err:
			default:
			}
		}
		ended <- err
	}()
}

func (p *program) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel == nil {
		return nil
	}
	p.cancel()
	p.cancel = nil
	return <-p.ended
}

func (p *program) on() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cancel != nil
}

func (s *Sandbox) switchConsumer(name string, on bool) error {
	for _, p := range s.consumers {
		switch {
		case p.name != name:
		case on:
			p.start(s.failed)
			return nil
		default:
			return p.stop()
		}
	}
	return errors.New("there is no such consumer")
}

func (s *Sandbox) consumerSwitches() []switchView {
	out := []switchView{}
	for _, p := range s.consumers {
		out = append(out, switchView{p.name, p.on()})
	}
	return out
}

// A vendor is a stand-in at an address. While it is down connections are refused, and
// those that were open are cut.
type vendor struct {
	mu     sync.Mutex
	name   string
	addr   string
	h      http.Handler
	server *http.Server // nil: down
}

func (v *vendor) up() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.server != nil {
		return nil
	}
	l, err := net.Listen("tcp", v.addr)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	v.addr = l.Addr().String()
	v.server = &http.Server{Handler: v.h, ReadHeaderTimeout: 5 * time.Second}
	server := v.server
	go func() { _ = server.Serve(l) }() // ends with down
	return nil
}

func (v *vendor) down() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.server == nil {
		return nil
	}
	err := v.server.Close()
	v.server = nil
	return err
}

func (s *Sandbox) switchVendor(name string, on bool) error {
	for _, v := range s.vendorList {
		switch {
		case v.name != name:
		case on:
			return v.up()
		default:
			return v.down()
		}
	}
	return errors.New("there is no such provider")
}

func (s *Sandbox) vendorSwitches() []switchView {
	out := []switchView{}
	for _, v := range s.vendorList {
		v.mu.Lock()
		out = append(out, switchView{v.name, v.server != nil})
		v.mu.Unlock()
	}
	return out
}
