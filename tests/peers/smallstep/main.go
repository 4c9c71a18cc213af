// step-ca from its library, with two commands:
//
//	provisioner PASSWORD       prints a provisioner's public key and its private one, encrypted as `step ca provisioner add` does
//	serve CONFIGURATION ISSUED serves; every certificate that it signs becomes a file in the folder ISSUED first
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/ca"
	"github.com/smallstep/certificates/db"
	"go.step.sm/crypto/jose"

	_ "github.com/smallstep/certificates/cas/softcas"
	_ "github.com/smallstep/certificates/kms/softkms"
)

// recording is a database that writes each certificate into a folder first.
type recording struct {
	*db.DB
	folder string
}

// StoreCertificateChain is what step-ca calls, for the database has it.
func (r recording) StoreCertificateChain(p provisioner.Interface, chain ...*x509.Certificate) error {
	if err := record(r.folder, chain[0]); err != nil {
		return err
	}
	return r.DB.StoreCertificateChain(p, chain...)
}

// forgetting is what step-ca has without a database.
type forgetting struct {
	db.AuthDB
	folder string
}

func (f forgetting) StoreCertificate(crt *x509.Certificate) error {
	return record(f.folder, crt)
}

func record(folder string, crt *x509.Certificate) error {
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt.Raw})
	return os.WriteFile(filepath.Join(folder, crt.SerialNumber.String()+".pem"), data, 0o600)
}

func withStore(cfg *config.Config, folder string) (ca.Option, error) {
	store, err := db.New(cfg.DB)
	if err != nil {
		return nil, err
	}
	if kept, ok := store.(*db.DB); ok {
		return ca.WithDatabase(recording{kept, folder}), nil
	}
	return ca.WithDatabase(forgetting{store, folder}), nil
}

func newProvisioner(password string) error {
	public, encrypted, err := jose.GenerateDefaultKeyPair([]byte(password))
	if err != nil {
		return err
	}
	compact, err := encrypted.CompactSerialize()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"key": public, "encryptedKey": compact, "full": json.RawMessage(encrypted.FullSerialize()),
	})
}

func serve(configuration, issued string) error {
	cfg, err := config.LoadConfiguration(configuration)
	if err != nil {
		return err
	}
	store, err := withStore(cfg, issued)
	if err != nil {
		return err
	}
	server, err := ca.New(cfg, store, ca.WithQuiet(true))
	if err != nil {
		return err
	}
	return server.Run()
}

func main() {
	err := fmt.Errorf("usage: provisioner PASSWORD | serve CONFIGURATION ISSUED")
	switch {
	case len(os.Args) == 3 && os.Args[1] == "provisioner":
		err = newProvisioner(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
