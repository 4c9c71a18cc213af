import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.math.BigInteger;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertStore;
import java.security.cert.X509CRL;
import java.security.cert.X509Certificate;
import java.util.Base64;
import java.util.Collection;
import java.util.Date;
import javax.security.auth.x500.X500Principal;
import org.bouncycastle.asn1.DERPrintableString;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cert.jcajce.JcaX509v3CertificateBuilder;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;
import org.jscep.client.Client;
import org.jscep.client.EnrollmentResponse;
import org.jscep.client.verification.OptimisticCertificateVerifier;
import org.jscep.transaction.OperationFailureException;
import org.jscep.transaction.TransactionId;

/**
 * Drives jscep by one command a run; a device is a PKCS#12 file that holds its key and the certificate that signs for it.
 *
 * <p>Prints what came back as its first word: SUCCESS, PENDING with the transaction, or FAILURE with the failInfo; certificates
 * go to the file `out`, PEM, and CRLs, DER.
 */
public final class Driver {
    private static final char[] PASSWORD = "device".toCharArray();
    private static final long DAY = 86_400_000L;

    private final Client client;
    private final Path device;
    private final Path out;

    private Driver(String url, String folder) throws Exception {
        client = new Client(new URL(url), new OptimisticCertificateVerifier());
        device = Path.of(folder, "device.p12");
        out = Path.of(folder, "out");
    }

    public static void main(String[] args) throws Exception {
        Driver driver = new Driver(args[1], args[2]);
        try {
            System.out.println(driver.run(args));
        } catch (OperationFailureException refused) {
            System.out.println("FAILURE " + refused.getFailInfo());
        }
    }

    private String run(String[] args) throws Exception {
        switch (args[0]) {
            case "enroll":
                return enroll(args[3], args[4]);
            case "poll":
                return poll(args[3], args[4]);
            case "renew":
                return renew(args[3]);
            case "certificate":
                return save(client.getCertificate(certificate(), key(), new BigInteger(args[3])));
            case "crl":
                return crl();
            case "next-ca":
                return save(client.getRolloverCertificate());
            default:
                throw new IllegalArgumentException(args[0]);
        }
    }

    private String enroll(String subject, String challenge) throws Exception {
        KeyPair pair = newPair();
        store(pair.getPrivate(), selfSigned(pair, subject));
        return answer(client.enrol(certificate(), key(), request(pair, subject, challenge)), pair.getPrivate());
    }

    private String poll(String subject, String transaction) throws Exception {
        TransactionId id = new TransactionId(transaction.getBytes("US-ASCII"));
        return answer(client.poll(certificate(), key(), new X500Principal(subject), id), key());
    }

    /** A new key, in a request that the certificate of the old one signs. */
    private String renew(String subject) throws Exception {
        KeyPair pair = newPair();
        return answer(client.enrol(certificate(), key(), request(pair, subject, "")), pair.getPrivate());
    }

    private String crl() throws Exception {
        X509Certificate own = certificate();
        X509CRL found = client.getRevocationList(own, key(), own.getIssuerX500Principal(), own.getSerialNumber());
        Files.write(out, found.getEncoded());
        return "SUCCESS";
    }

    private String answer(EnrollmentResponse response, PrivateKey ownKey) throws Exception {
        if (response.isPending()) {
            return "PENDING " + response.getTransactionId();
        }
        if (response.isFailure()) {
            return "FAILURE " + response.getFailInfo();
        }
        Certificate issued = first(response.getCertStore());
        store(ownKey, issued);
        return save(response.getCertStore());
    }

    private String save(CertStore found) throws Exception {
        StringBuilder text = new StringBuilder();
        for (Certificate certificate : found.getCertificates(null)) {
            String base64 = Base64.getMimeEncoder().encodeToString(certificate.getEncoded());
            text.append("-----BEGIN CERTIFICATE-----\n").append(base64).append("\n-----END CERTIFICATE-----\n");
        }
        Files.writeString(out, text);
        return "SUCCESS";
    }

    private static Certificate first(CertStore store) throws Exception {
        Collection<? extends Certificate> certificates = store.getCertificates(null);
        return certificates.iterator().next();
    }

    private static KeyPair newPair() throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
        generator.initialize(2048);
        return generator.generateKeyPair();
    }

    private static X509Certificate selfSigned(KeyPair pair, String subject) throws Exception {
        X500Principal name = new X500Principal(subject);
        Date start = new Date(System.currentTimeMillis() - DAY);
        Date end = new Date(System.currentTimeMillis() + DAY);
        JcaX509v3CertificateBuilder builder =
                new JcaX509v3CertificateBuilder(name, BigInteger.ONE, start, end, name, pair.getPublic());
        return new JcaX509CertificateConverter().getCertificate(builder.build(signer(pair)));
    }

    private static PKCS10CertificationRequest request(KeyPair pair, String subject, String challenge) throws Exception {
        JcaPKCS10CertificationRequestBuilder builder =
                new JcaPKCS10CertificationRequestBuilder(new X500Principal(subject), pair.getPublic());
        if (!challenge.isEmpty()) {
            builder.addAttribute(PKCSObjectIdentifiers.pkcs_9_at_challengePassword, new DERPrintableString(challenge));
        }
        return builder.build(signer(pair));
    }

    private static ContentSigner signer(KeyPair pair) throws Exception {
        return new JcaContentSignerBuilder("SHA256withRSA").build(pair.getPrivate());
    }

    private void store(PrivateKey own, Certificate certificate) throws Exception {
        KeyStore file = KeyStore.getInstance("PKCS12");
        file.load(null, PASSWORD);
        file.setKeyEntry("device", own, PASSWORD, new Certificate[] {certificate});
        try (OutputStream stream = new FileOutputStream(device.toFile())) {
            file.store(stream, PASSWORD);
        }
    }

    private KeyStore opened() throws Exception {
        KeyStore file = KeyStore.getInstance("PKCS12");
        try (InputStream stream = Files.newInputStream(device)) {
            file.load(stream, PASSWORD);
        }
        return file;
    }

    private X509Certificate certificate() throws Exception {
        return (X509Certificate) opened().getCertificate("device");
    }

    private PrivateKey key() throws Exception {
        return (PrivateKey) opened().getKey("device", PASSWORD);
    }
}
