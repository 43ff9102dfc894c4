package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
)

// Run recovers what a previous server left, serves until ctx is cancelled, and
// drains. Running agents are left to their shims.
func (a *App) Run(ctx context.Context) error {
	// The dispatcher outlives the requests that it answers: it stops after them.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	resume, err := a.dispatch.Recover(work)
	if err != nil {
		return err
	}
	dispatched := make(chan error, 1)
	go func() { dispatched <- a.dispatch.Run(work) }()
	backedUp := make(chan error, 1)
	if a.backups != nil {
		go func() { backedUp <- a.backups.Run(work) }()
	} else {
		backedUp <- nil
	}
	hubbed := make(chan error, 1)
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	go func() { hubbed <- a.hub.Run(hubCtx) }()

	listener := a.listener
	if a.certs != nil {
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
			GetCertificate: a.certs.get,
		})
	}
	// Whoever finds the server ready also finds the files that it leaves for
	// people and clients; calls wait in the socket's queue meanwhile.
	url, link, err := a.leaveFiles(ctx)
	served := make(chan error, 1)
	go func() { served <- a.http.Serve(listener) }()
	if err == nil {
		a.ready(ctx, url, link)
		resume()
		// A start takes several times the memory that serving does, and what it
		// leaves would go back to the system slowly, if at all.
		debug.FreeOSMemory()
	}
	watched := make(chan struct{})
	watchCtx, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatch()
	go func() {
		defer close(watched)
		a.watch().run(watchCtx)
	}()
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-served:
			err = fmt.Errorf("serve: %w", err)
		case err = <-dispatched:
			err = errors.Join(errors.New("the dispatcher ended"), err)
		}
	}
	err = errors.Join(err, a.drain(served))
	stopWatch()
	<-watched
	stopWork()
	stopHub()
	if err == nil {
		err = errors.Join(<-dispatched, <-hubbed, <-backedUp)
	}
	return err
}

// leaveFiles writes what people and clients find the server by: the one-time
// link of the first start, if nobody has used it, and the runtime file.
func (a *App) leaveFiles(ctx context.Context) (url, link string, err error) {
	c := a.config.Load()
	url = baseURL(c, a.listener.Addr())
	if link, err = api.EnsureSetup(ctx, a.db, a.layout, url); err != nil {
		return "", "", err
	}
	if err := client.WriteRuntime(client.RuntimeFile(c.XDGRuntimeDir, c.Home), client.Runtime{
		Address: url, KeyFile: a.layout.CLIKey(), DataDir: a.layout.Root, PID: os.Getpid(),
	}); err != nil {
		// Clients can still be told by AGENTED_URL.
		a.o.Log.Warn("the file that tells clients where the server is could not be written", "err", err)
	}
	return url, link, nil
}

// ready says to everyone who waits that the server is up.
func (a *App) ready(ctx context.Context, url, link string) {
	if err := a.firstStart(ctx); err != nil {
		a.o.Log.Warn("the sample trigger could not be made", "err", err)
	}
	a.o.Log.Info("ready", "address", url, "version", a.o.Version, "data", a.layout.Root)
	if link != "" && a.o.Announce == nil {
		a.o.Log.Info("nobody can log in yet: the one-time link is in a file", "file", a.layout.SetupLink())
	}
	if a.o.Announce != nil {
		a.o.Announce(url, link)
	}
	a.notify.ready(a.status())
}

// baseURL is the address at which a client on this machine reaches the server.
func baseURL(c *config.Config, addr net.Addr) string {
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return "unix:" + addr.String()
	}
	host := tcp.IP.String()
	if tcp.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(host, fmt.Sprint(tcp.Port)))
}

// drain ends the serving without losing a request. http.Server.Shutdown by
// itself drops a request that it reads just after it began, so the order is:
// no keep-alive, streams told to come back, no new connections, wait for those
// that are open, and only then Shutdown.
func (a *App) drain(served <-chan error) error {
	c := a.config.Load()
	began := time.Now()
	a.draining.Store(true)
	a.notify.stopping(fmt.Sprintf("draining; executions that go on: %d", a.dispatch.Running()), c.Shutdown)
	a.o.Log.Info("draining", "connections", a.conns.count(), "running", a.dispatch.Running(), "timeout", c.Shutdown.String())
	a.api.Drain()
	a.http.SetKeepAlivesEnabled(false)
	a.hub.Drain()
	var errs []error
	if err := a.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, fmt.Errorf("close the socket: %w", err))
	}
	select {
	case <-served:
	case <-time.After(5 * time.Second):
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Shutdown)
	defer cancel()
	if err := a.conns.wait(ctx); err != nil {
		a.o.Log.Warn("connections were cut at the end of the drain time", "connections", a.conns.count())
	}
	last, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.http.Shutdown(last); err != nil {
		errs = append(errs, a.http.Close())
	}
	a.o.Log.Info("drained", "took", time.Since(began).Round(time.Millisecond).String(), "left_running", a.dispatch.Running())
	return errors.Join(errs...)
}

// certificates holds the certificate that new connections get.
type certificates struct {
	current atomic.Pointer[tls.Certificate]
}

func loadCertificates(cert, key string) (*certificates, error) {
	c, err := readCertificate(cert, key)
	if err != nil {
		return nil, err
	}
	out := new(certificates)
	out.current.Store(c)
	return out, nil
}

func readCertificate(cert, key string) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_TLS_CERT and AGENTED_TLS_KEY: the pair cannot be used (%v): check both files", err)
	}
	return &c, nil
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
