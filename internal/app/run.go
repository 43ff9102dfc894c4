package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
)

// Run recovers the executions of a previous server, serves until ctx is cancelled, and shuts down
// gracefully. Running agents are left to their shims.
func (a *App) Run(ctx context.Context) error {
	// The dispatcher must outlive the requests that use it.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	resume, err := a.dispatch.Recover(work)
	if err != nil {
		return err
	}
	dispatched := make(chan error, 1)
	go func() { dispatched <- a.dispatch.Run(work) }()
	var loops sync.WaitGroup
	loops.Go(func() { a.conversations.Run(work) })
	loops.Go(func() { a.scheduler.Run(work) })
	loops.Go(func() { a.pruner.Run(work) })
	loops.Go(func() { a.notifications.Run(work) })
	loops.Go(func() { a.publisher.Run(work) })
	loops.Go(func() { a.learnAccount(work) })
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
	// The files must exist when the server is ready; meanwhile connections wait in the socket's
	// queue.
	url, link, err := a.leaveFiles(ctx)
	served := make(chan error, 1)
	go func() { served <- a.http.Serve(listener) }()
	loops.Go(a.serveLocal)
	if err == nil {
		a.ready(ctx, url, link)
		resume()
		loops.Go(func() { a.puller.Run(work) })
		// A start needs several times the memory of serving, which would be returned to the
		// system slowly or never.
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
	a.withdrawFiles(url)
	err = errors.Join(err, a.drain(served))
	stopWatch()
	<-watched
	stopWork()
	stopHub()
	if err == nil {
		err = errors.Join(<-dispatched, <-hubbed, <-backedUp)
		loops.Wait()
	}
	return err
}

// leaveFiles writes the runtime file for clients and, until the server is set up, the one-time
// setup link.
func (a *App) leaveFiles(ctx context.Context) (url, link string, err error) {
	c := a.config.Load()
	url = baseURL(c, a.listener.Addr())
	if link, err = auth.EnsureSetup(ctx, a.db, a.layout, url+c.BasePath); err != nil {
		return "", "", err
	}
	other, err := client.Publish(a.runtime(url), c.XDGRuntimeDir, c.Home)
	if err != nil {
		// Clients can still find the server with AGENTED_URL.
		a.o.Log.Warn("the runtime file for client commands could not be written", "err", err)
	}
	if other != nil {
		a.o.Log.Warn("another server of this user is running: client commands use that one unless AGENTED_DATA_DIR or AGENTED_URL is set",
			"other_address", other.Address, "other_data", other.DataDir, "data", a.layout.Root)
	}
	return url, link, nil
}

// runtime describes this server for the clients of the same user.
func (a *App) runtime(url string) client.Runtime {
	return client.Runtime{Address: url, Listens: listens(a.config.Load(), a.listener.Addr()), Socket: a.socket(), DataDir: a.layout.Root, PID: os.Getpid()}
}

// withdrawFiles removes the files that lead clients to this server. They are kept if a service
// manager keeps the socket, because the next server uses it.
func (a *App) withdrawFiles(url string) {
	if s := a.o.Supervisor; s.Notify != "" || len(s.Sockets) > 0 {
		return
	}
	c := a.config.Load()
	if err := client.Withdraw(a.runtime(url), c.XDGRuntimeDir, c.Home); err != nil {
		a.o.Log.Warn("the runtime file for client commands could not be removed", "err", err)
	}
}

// ready announces that the server is ready.
func (a *App) ready(ctx context.Context, url, link string) {
	if err := a.firstStart(ctx); err != nil {
		a.o.Log.Warn("the sample trigger could not be created", "err", err)
	}
	a.o.Log.Info("ready", "address", url, "version", a.o.Version, "data", a.layout.Root)
	if link != "" && a.o.Announce == nil {
		a.o.Log.Info("no user exists yet: create the first one with the one-time link in this file", "file", a.layout.SetupLink())
	}
	if a.o.Announce != nil {
		a.o.Announce(url+a.config.Load().BasePath, link)
	}
	a.notify.ready(a.status())
}

// baseURL returns the URL of the server for clients on this machine.
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

// listens returns the listen address as a URL. Unlike baseURL it keeps an address that stands for
// all addresses.
func listens(c *config.Config, addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return baseURL(c, addr)
	}
	scheme, _, _ := strings.Cut(baseURL(c, addr), "://")
	return scheme + "://" + tcp.String()
}

// drain stops serving without losing a request. http.Server.Shutdown alone drops a request that
// it reads just after it began, so the order is: disable keep-alive, end streams with a hint to
// reconnect, close the listener, wait for open connections, and only then call Shutdown.
func (a *App) drain(served <-chan error) error {
	c := a.config.Load()
	began := time.Now()
	a.draining.Store(true)
	a.notify.stopping(fmt.Sprintf("shutting down; executions that continue: %d", a.dispatch.Running()), c.Shutdown)
	a.o.Log.Info("draining", "connections", a.conns.count(), "running", a.dispatch.Running(), "timeout", c.Shutdown.String())
	a.api.Drain()
	a.http.SetKeepAlivesEnabled(false)
	a.hub.Drain()
	var errs []error
	if err := a.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, fmt.Errorf("close the socket: %w", err))
	}
	if err := a.drainLocal(); err != nil {
		errs = append(errs, fmt.Errorf("close the local socket: %w", err))
	}
	select {
	case <-served:
	case <-time.After(5 * time.Second):
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Shutdown)
	defer cancel()
	if err := a.conns.wait(ctx); err != nil {
		a.o.Log.Warn("connections were closed at the end of AGENTED_SHUTDOWN_TIMEOUT", "connections", a.conns.count())
	}
	last, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.http.Shutdown(last); err != nil {
		errs = append(errs, a.http.Close())
	}
	a.o.Log.Info("drained", "took", time.Since(began).Round(time.Millisecond).String(), "left_running", a.dispatch.Running())
	return errors.Join(errs...)
}

// certificates holds the certificate for new connections.
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
